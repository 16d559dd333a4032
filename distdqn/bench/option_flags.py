"""Flags from the fields of a dataclass.

Each field's type says how its flag is read, its default what is meant without it, and
the class's docstring, "name: meaning" for each, what --help says.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

from distdqn.config import plain_type


def add_option_flags(parser: argparse.ArgumentParser, options: Any) -> None:
    """One flag for each field of a dataclass; only those given get a value.

    options: with the values that are meant without the flags.
    A tuple's flag takes one or more values, a bool's is `--name` or `--no-name`.
    """
    hints, meanings = typing.get_type_hints(type(options)), field_meanings(type(options))
    for field in dataclasses.fields(options):
        bare, optional = plain_type(hints[field.name])
        default, flag = getattr(options, field.name), f"--{field.name.replace('_', '-')}"
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        meaning = meanings.get(field.name, "").rstrip(".").replace("%", "%%")
        settings["help"] = f"{meaning} (default: {_shown(default)})".lstrip()
        if bare is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
            continue
        if get_origin(bare) is tuple:
            settings["nargs"] = "+"
            bare = get_args(bare)[0]
        zero_too = field.metadata.get("least", 1) == 0 or default == 0
        parser.add_argument(flag, **settings, **_reading(bare, zero_too, optional))


def option_values(options: type, namespace: argparse.Namespace) -> dict[str, Any]:
    """What those flags said, by field; tuples as tuples."""
    names = {field.name for field in dataclasses.fields(options)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(namespace).items()
        if name in names
    }


def field_meanings(options: type) -> Mapping[str, str]:
    """By field, what the docstring's lines "name: meaning" say, continued ones joined.

    Several fields with one meaning stand as "one, other: meaning".
    """
    found: dict[str, str] = {}
    current: list[str] = []
    for line in (inspect.getdoc(options) or "").splitlines()[1:]:
        begins = re.match(r"(\w+(?:, \w+)*): +(.*)", line)
        if begins:
            current = begins[1].split(", ")
            found.update(dict.fromkeys(current, begins[2].strip()))
        elif line.strip() and line.startswith(" "):
            found.update({name: f"{found[name]} {line.strip()}" for name in current})
        else:
            current = []
    return found


def _reading(bare: Any, zero_too: bool, optional: bool) -> dict[str, Any]:
    """argparse's `type` or `choices` for one value."""
    if get_origin(bare) is Literal:
        return {"choices": get_args(bare), "metavar": "|".join(map(str, get_args(bare)))}
    read = _number(bare, zero_too) if bare in (int, float) else str
    name = {int: "N", float: "X"}.get(bare, "TEXT")
    return {"type": _or_none(read) if optional else read, "metavar": name}


def _number(kind: type, zero_too: bool) -> Callable[[str], float]:
    least = f"of at least {0 if zero_too else 1}" if kind is int or zero_too else "above 0"
    wanted = f"a {'whole ' if kind is int else ''}number {least}"

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (0.0 < value < math.inf or (zero_too and value == 0.0)):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {text!r}")
        return value

    return read


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() in ("none", "null") else read(text)


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return "none" if default is None else str(default)
