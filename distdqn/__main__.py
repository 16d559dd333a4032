"""`python -m distdqn` is the command `distdqn`."""

from distdqn.cli.main import main_and_exit

if __name__ == "__main__":
    main_and_exit()
