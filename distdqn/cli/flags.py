"""Flags: read into values, refused in one line.

argparse splits the command line; what a value may be is left to the configuration, so
flags and YAML are refused with the same words, after all sources have been merged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, get_origin

from distdqn.config import key_types, nearest_key, plain_type
from distdqn.errors import DistDQNError


class UsageError(DistDQNError):
    """A command line that cannot be read; the message begins with the command."""

    exit_status = 2


class FlagParser(argparse.ArgumentParser):
    """argparse with one-line errors that name the nearest flag.

    Flags are matched whole, never by a unique beginning, and `_` in a name is read as `-`.
    """

    def __init__(self, prog: str, **options: Any):
        super().__init__(prog=prog, allow_abbrev=False, **options)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The values by name; UsageError (exit status 2) for what cannot be read."""
        words = [_with_hyphens(word) for word in arguments]
        for word in words:
            if word.startswith("--") and word.partition("=")[0] not in self._option_string_actions:
                raise self._unknown_option(word.partition("=")[0])
        namespace, rest = self.parse_known_args(words)
        if rest:
            raise UsageError(
                f"{self.prog}: unexpected argument {rest[0]!r}; see {self.prog} --help"
            )
        return namespace

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")

    def _unknown_option(self, flag: str) -> UsageError:
        known = [name[2:] for name in self._option_string_actions if name.startswith("--")]
        alike = nearest_key(flag[2:], known)
        hint = f"did you mean --{alike}?" if alike else f"see {self.prog} --help"
        return UsageError(f"{self.prog}: unknown option {flag}; {hint}")


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for every configuration key; bool ones also as `--part.no-name`."""
    for key, annotation in key_types().items():
        options: dict[str, Any] = {"dest": key, "default": argparse.SUPPRESS}
        bare, _ = plain_type(annotation)
        if bare is bool:
            parser.add_argument(negated(key), action="store_const", const="false", **options)
            options |= {"nargs": "?", "const": "true"}
        elif get_origin(bare) is tuple:
            options["nargs"] = "+"
        parser.add_argument(flag_name(key), **options)


def config_values(namespace: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_config_flags` said, by dotted key; only those given."""
    given = vars(namespace)
    return {
        key: _read_value(key, given[key], annotation)
        for key, annotation in key_types().items()
        if key in given
    }


def whole_number(low: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least `low`."""

    def read(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {low}, not {text!r}"
            )
        return int(text)

    return read


def probability(text: str) -> float:
    """An argparse type: a number in [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a probability in [0, 1], not {text!r}")
    return value


def flag_name(key: str) -> str:
    return "--" + key.replace("_", "-")


def negated(key: str) -> str:
    """`--learner.no-double` for `learner.double`."""
    part, dot, name = key.rpartition(".")
    return flag_name(f"{part}{dot}no-{name}")


def _with_hyphens(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _read_value(key: str, text: str | list[str], annotation: Any) -> Any:
    """Text as YAML would have it, where text alone does not say it.

    Numbers and schedules stay text: YAML 1.1 would read `010` as 8 and `1:0:50` as 3650.
    """
    import yaml

    bare, optional = plain_type(annotation)
    if isinstance(text, list):
        joined = ", ".join(text)
        text = joined if joined.startswith("[") else f"[{joined}]"
    if optional and text.lower() in ("none", "null"):
        return None
    if bare is not bool and get_origin(bare) in (None, Literal):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"distdqn train: {flag_name(key)} is {text!r}, not JSON or YAML") from None
