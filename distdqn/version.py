"""The version of this package, for pyproject, checkpoints and `distdqn --version`."""

__version__ = "0.1.0"
