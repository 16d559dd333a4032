"""Configurations from YAML, presets and dotted values, and back.

Every source is first flattened to `{"replay.capacity": 100000}`; later sources replace
single keys of earlier ones, and only the merged whole is checked.
"""

import dataclasses
import functools
import importlib.resources
import operator
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from distdqn.config.tree import Config
from distdqn.config.values import Schedule, did_you_mean, field_types, is_section
from distdqn.errors import ConfigError

_PRESETS = importlib.resources.files("distdqn") / "presets"


@functools.cache
def key_types(section: type = Config) -> Mapping[str, Any]:
    """The annotation of every leaf by its dotted key, in the order of the help."""
    return dict(_leaves(section, ""))


def from_values(values: Mapping[str, Any]) -> Config:
    """A configuration of the defaults with the values at some dotted keys replaced.

    Raises ConfigError for an unknown key (with the nearest known one), or what `Config` refuses.
    """
    for key in values:
        if key not in key_types():
            raise _unknown_key(key)
    return build(Config, values)


def to_values(config: Config) -> dict[str, Any]:
    """Every leaf by its dotted key."""
    return {key: operator.attrgetter(key)(config) for key in key_types()}


def to_plain(config: Config) -> dict[str, Any]:
    """Every leaf by its dotted key, as JSON and YAML have it."""
    return {key: _as_yaml(value) for key, value in to_values(config).items()}


def from_yaml(text: str) -> Config:
    """A configuration from YAML text; keys that are absent keep their defaults."""
    return from_values(_read_yaml(text, "the YAML text"))


def to_yaml(config: Config) -> str:
    """YAML text with every field, which `from_yaml` reads back to an equal `Config`."""
    import yaml

    return yaml.safe_dump(_as_yaml(config), sort_keys=False, allow_unicode=True)


def load_config(
    path: str | pathlib.Path | None = None,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Config:
    """Merges defaults, then a preset, then a YAML file, then values by dotted key.

    path: of a YAML file.  preset: a name from `preset_names`.  values: as flags give them.
    Raises ConfigError for an unknown preset or key, an unreadable file, a value out of range.
    """
    merged: dict[str, Any] = {}
    if preset is not None:
        merged |= _read_yaml(read_preset(preset), f"preset {preset}")
    if path is not None:
        merged |= _read_yaml(_read_file(path), str(path))
    return from_values(merged | dict(values or {}))


def preset_names() -> list[str]:
    """The presets in the package, by name."""
    names = [entry.name for entry in _PRESETS.iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_preset(name: str) -> str:
    """The YAML text of a preset, with its sources in comments; ConfigError if unknown."""
    names = preset_names()
    if name not in names:
        hint = did_you_mean(name, names, "the presets are " + ", ".join(names))
        raise ConfigError(f"unknown preset {name!r}; {hint}")
    return (_PRESETS / f"{name}.yaml").read_text("utf-8")


def _unknown_key(key: str) -> ConfigError:
    """The refusal of a key that no field has."""
    hint = did_you_mean(key, key_types(), "`distdqn train --help` lists all keys")
    return ConfigError(f"unknown key {key!r}; {hint}")


def _leaves(section: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, annotation in field_types(section).items():
        if is_section(annotation):
            yield from _leaves(annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, annotation


def build(section: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass `section` and those in it, with the values at some dotted keys replaced."""
    arguments = {}
    for name, annotation in field_types(section).items():
        if is_section(annotation):
            arguments[name] = build(annotation, values, f"{prefix}{name}.")
        elif prefix + name in values:
            arguments[name] = values[prefix + name]
    return section(**arguments)


def _read_file(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from None


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(text)
        return dict(_flatten({} if tree is None else tree, ""))
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None


def _flatten(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The leaves of a YAML tree; `replay: {capacity: 5}` and `replay.capacity: 5` alike."""
    if not isinstance(tree, Mapping):
        where = prefix.removesuffix(".") or "a configuration"
        raise ConfigError(f"{where} is {tree!r}, must be a mapping from names to values")
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in key_types():
            yield key, value
        elif any(known.startswith(f"{key}.") for known in key_types()):
            yield from _flatten({} if value is None else value, f"{key}.")
        else:
            raise _unknown_key(key)


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Schedule):
        constant = value == Schedule.constant(value.start)
        return value.start if constant else dataclasses.asdict(value)
    if dataclasses.is_dataclass(value):
        return {f.name: _as_yaml(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value
