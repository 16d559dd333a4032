"""Dotted keys: the leaves of a configuration, flattened and built again.

`{"replay": {"capacity": 5}}`, `{"replay.capacity": 5}` and YAML of either form name the
same leaf; given twice in one source it is refused, since one of the two would be lost.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from distdqn.config.suggestions import did_you_mean_key
from distdqn.config.values import field_types, is_section
from distdqn.errors import ConfigError

Entries = Iterator[tuple[str, Any, str]]
"""Of one mapping: name, what stands there, and where ("line 3", or "" in Python)."""


_OF_A_SECTION = {  # what is meant where a section is given a single value
    "env": "env.id",
    "workers": "workers.count",
    "workers.epsilon": "workers.epsilon.value",
}


@functools.cache
def key_types(kind: type) -> Mapping[str, Any]:
    """The annotation of every leaf by its dotted key, in the order of the help."""
    return dict(_types(kind, ""))


def flatten(tree: Any, kind: type) -> dict[str, Any]:
    """The values of a nested or dotted mapping by dotted key.

    Raises ConfigError for a key that `kind` lacks, with the one meant, and one given twice.
    """
    return read_leaves(tree, kind, _entries_of_mapping)


def read_leaves(
    tree: Any, kind: type, entries: Callable[[Any, str], Entries], source: str = ""
) -> dict[str, Any]:
    """What stands at every leaf that `tree` gives, by dotted key.

    entries: (a tree, its key) -> what the tree has; raises where it is no mapping.
    source: begins the errors.
    """
    found: dict[str, Any] = {}
    places: dict[str, str] = {}
    unknown: list[str] = []
    for key, value, place in _walk(tree, kind, entries, ""):
        if key not in key_types(kind):
            unknown.append(f"{begin(source, place)}unknown key {key!r}; {_meant(key, kind)}")
            continue
        if key in found:
            raise given_twice(key, source, place, places[key])
        found[key], places[key] = value, place
    if unknown:
        raise ConfigError("; ".join(unknown))
    return found


def given_twice(key: str, source: str, place: str, first: str) -> ConfigError:
    """The refusal of a key that one source has twice."""
    first = f", first in {first}" if first else ""
    return ConfigError(f"{begin(source, place)}{key} is given twice{first}: remove one")


def no_mapping(key: str, shown: str, source: str, place: str) -> ConfigError:
    """The refusal of something else where a mapping has to be.

    key: "" for the whole.  shown: what is there.
    """
    hint = f"; did you mean {_OF_A_SECTION[key]}?" if key in _OF_A_SECTION else ""
    return ConfigError(
        f"{begin(source, place)}{key or 'a configuration'} is {shown}, must be a mapping from "
        f"names to values{hint}"
    )


def begin(source: str, place: str) -> str:
    """How the message about a place in a source begins."""
    where = ", ".join(filter(None, (source, place)))
    return where and f"{where}: "


def build(kind: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass `kind` and those in it, with the values at some dotted keys replaced."""
    arguments = {}
    for name, annotation in field_types(kind).items():
        if is_section(annotation):
            arguments[name] = build(annotation, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return kind(**arguments)


def _types(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, annotation in field_types(kind).items():
        if is_section(annotation):
            yield from _types(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, annotation


def _walk(tree: Any, kind: type, entries: Callable[[Any, str], Entries], prefix: str) -> Entries:
    """Every leaf, and every key that `kind` lacks."""
    known = key_types(kind)
    for name, value, place in entries(tree, prefix.removesuffix(".")):
        key = prefix + name
        if any(other.startswith(f"{key}.") for other in known):
            yield from _walk(value, kind, entries, f"{key}.")
        else:
            yield key, value, place


def _meant(key: str, kind: type) -> str:
    """What an unknown key may have meant; not the section in which it stands."""
    known = key_types(kind)
    sections = {other.rpartition(".")[0] for other in known} - {"", key.rpartition(".")[0]}
    words = [*known, *sorted(sections)]
    return did_you_mean_key(key, words, "`distdqn train --help` lists all keys")


def _entries_of_mapping(tree: Any, key: str) -> Entries:
    if tree is None and key:
        return
    if not isinstance(tree, Mapping):
        raise no_mapping(key, repr(tree), "", "")
    for name, value in tree.items():
        yield str(name), value, ""
