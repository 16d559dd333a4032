"""Help for every configuration key, drawn by tyro from the fields themselves.

tyro does not read the flags: it would check a preset and a file before the flags that
complete them, and answer a slip with a box where one line is promised.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro

from distdqn.config import Config, Schedule, plain_type

_ABOUT = """Trains a deep Q-network: env workers, replay shards and a learner on Ray.

Later sources replace single values of earlier ones: the defaults, then --preset, then \
--config, then flags. A bool is set by --learner.double, --learner.no-double or \
--learner.double true; `none` stands for no value; - and _ are the same in a flag's name."""

_METAVARS: dict[Any, str] = {
    int: "INT",
    float: "NUMBER",
    str: "TEXT",
    tuple: "INT [INT ...]",
    Mapping: "JSON",
    Schedule: "NUMBER|START:END:ENV_STEPS",
}


_Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclasses.dataclass(frozen=True)
class _Flags:
    """What the help shows: the flags of `distdqn train` itself, then every key."""

    preset: str | None = None
    """Preset to start from; --list-presets names them."""
    config: str | None = None
    """YAML file whose values replace the preset's."""
    list_presets: _Switch = False
    """Print the presets and end."""
    json: _Switch = False
    """Print the run's summary on stdout as JSON, and nothing else there."""
    debug: _Switch = False
    """Show tracebacks instead of one-line errors."""
    keys: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


def print_config_help(base: Config) -> None:
    """Prints every key with its meaning, unit and value in `base` on stdout."""
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_as_flag)
    try:
        tyro.cli(
            _Flags,
            prog="distdqn train",
            description=_ABOUT,
            args=["--help"],
            default=_Flags(keys=base),
            registry=registry,
        )
    except SystemExit:
        sys.stdout.flush()


def _as_flag(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """How a field's type and default look on the command line; None leaves it to tyro."""
    bare, optional = plain_type(info.type)
    kind = get_origin(bare) or bare
    if kind is Literal:
        metavar = "|".join(get_args(bare))
    elif kind in _METAVARS:
        metavar = _METAVARS[kind]
    else:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar + ("|none" if optional else ""),
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: True,
        str_from_instance=as_words,
    )


def as_words(value: Any) -> list[str]:
    """A value as its flag takes it, word by word."""
    if isinstance(value, tuple):
        return [str(item) for item in value] or ["[]"]
    if isinstance(value, Mapping):
        return [json.dumps(value)]
    if value is None or isinstance(value, bool):
        return [str(value).lower()]
    return [str(value)]
