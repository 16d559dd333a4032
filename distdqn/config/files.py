"""Configurations from YAML, presets and Python values, in the order in which they count.

Every source is first flattened to `{"replay.capacity": 100000}`; later sources replace
single keys of earlier ones, and only the merged whole is checked.
"""

import importlib.resources
import operator
import pathlib
from collections.abc import Mapping
from typing import Any

from distdqn.config.keys import build, flatten, key_types
from distdqn.config.suggestions import did_you_mean
from distdqn.config.tree import Config
from distdqn.config.yaml_text import as_plain, is_empty, read_yaml, read_yaml_lines
from distdqn.errors import ConfigError

_PRESETS = importlib.resources.files("distdqn") / "presets"


def from_values(values: Mapping[str, Any]) -> Config:
    """A configuration of the defaults with some values replaced.

    values: by dotted key, or nested as YAML is.
    Raises ConfigError for an unknown key (with the one meant), or what `Config` refuses.
    """
    return build(Config, flatten(values, Config))


def to_values(config: Config) -> dict[str, Any]:
    """Every leaf by its dotted key."""
    return {key: operator.attrgetter(key)(config) for key in key_types(Config)}


def to_plain(config: Config) -> dict[str, Any]:
    """Every leaf by its dotted key, as JSON and YAML have it."""
    return {key: as_plain(value) for key, value in to_values(config).items()}


def from_yaml(text: str) -> Config:
    """A configuration from YAML text; keys that are absent keep their defaults."""
    return from_values(read_yaml(text, Config, "the YAML text"))


def load_config(
    path: str | pathlib.Path | None = None,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Config:
    """Merges defaults, then a preset, then a YAML file, then values.

    path: of a YAML file.  preset: a name from `preset_names`.  values: by dotted key
    (`{"learner.batch_size": 64}`), or nested (`{"learner": {"batch_size": 64}}`).
    Raises ConfigError for an unknown preset or key, an unreadable file, a value out of range.
    """
    return build_named(*gather(path, preset, values))


def build_named(values: Mapping[str, Any], origins: Mapping[str, str]) -> Config:
    """As `from_values`; a value that is refused by itself is said with the file it is from."""
    try:
        return from_values(values)
    except ConfigError as error:
        origin = origins.get(str(error).partition(" ")[0], "values")
        if origin == "values":
            raise
        raise ConfigError(f"{origin}: {error}") from None


def gather(
    path: str | pathlib.Path | None = None,
    preset: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `load_config` merges, unchecked: the values that are given, and where each is from."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if preset is not None:
        merged = read_yaml(read_preset(preset), Config, f"preset {preset}")
        origins = dict.fromkeys(merged, f"preset {preset}")
    if path is not None:
        for key, (value, place) in _read_file(path).items():
            merged[key], origins[key] = value, f"{path}, {place}"
    given = flatten({} if values is None else values, Config)
    return merged | given, origins | dict.fromkeys(given, "values")


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


def _read_file(path: str | pathlib.Path) -> dict[str, tuple[Any, str]]:
    try:
        text = pathlib.Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = "it is not UTF-8 text"
        if not isinstance(error, UnicodeDecodeError):
            reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from None
    if is_empty(text):
        raise ConfigError(
            f"the configuration {path} is empty: set a key in it, or leave it out for the defaults"
        )
    return read_yaml_lines(text, Config, str(path))
