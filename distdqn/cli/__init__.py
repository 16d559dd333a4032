"""The command line: one file per verb, each with `run(arguments) -> exit status`.

`main` knows the verbs' names only and imports a verb's file when it is asked for, so
`distdqn --help` answers at once.
"""
