"""Flags for every field of some dataclasses.

tyro splits the command line and draws the help; what a value may be is left to the
dataclass, so flags and YAML are refused with the same words, and a flag may complete a
file that could not stand alone.
"""

import contextlib
import dataclasses
import inspect
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from tyro import constructors as rules

from distdqn.cli.output import OutputFlags
from distdqn.config import Config, Schedule
from distdqn.config.calls import Call
from distdqn.config.files import preset_names
from distdqn.config.keys import build, key_types
from distdqn.config.suggestions import did_you_mean_key
from distdqn.config.values import coerce, field_types, is_section, plain_type
from distdqn.errors import ConfigError, DistDQNError

_METAVARS: dict[Any, str] = {
    int: "INT",
    float: "NUMBER",
    str: "TEXT",
    bool: "true|false",
    Mapping: "JSON",
    Schedule: "NUMBER|START:END:LENGTH",
}

_T = TypeVar("_T")


class UsageError(DistDQNError):
    """A command line that cannot be read."""


class _Words(list[str]):
    """What a flag was given."""


def read_options(prog: str, kind: type[_T], words: Sequence[str]) -> tuple[_T, bool]:
    """The dataclass `kind` as the flags say, and whether --json is among them.

    Raises UsageError for what cannot be read, or is refused.
    """
    own, output = read_flags(prog, words, kind, OutputFlags)
    return make_options(kind, own), "json" in output


def make_options(kind: Any, given: Mapping[str, Any]) -> Any:
    """The dataclass `kind` of what `read_flags` gave; UsageError for what is refused."""
    types = key_types(kind)
    try:
        values = {key: coerce(value, types[key], flag_name(key)) for key, value in given.items()}
        return build(kind, values)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def read_flags(prog: str, words: Sequence[str], *kinds: type) -> list[dict[str, Any]]:
    """By dotted key, what the flags said, for each of the dataclasses `kinds`.

    Only what was given is there, and unchecked: numbers are still text. A field without a
    default is a positional argument. `-` and `_` in a flag's name are the same. A bool of
    `Config` is set by `--a.b`, `--a.no-b` or `--a.b true`, a benchmark's by `--b` or `--no-b`.
    Raises UsageError, one line, for what cannot be read, SystemExit after --help was printed.
    """
    if "--" in words:
        raise UsageError(f"unexpected argument '--'; see {prog} --help")
    _require_once(words)
    tree, unknown = _tyro(prog, [_FALSE.get(_hyphens(word), word) for word in words], kinds)
    if unknown:
        raise _unknown(prog, unknown, [key for kind in kinds for key in key_types(kind)])
    return [dict(_given(prog, kind, tree[kind.__name__], "")) for kind in kinds]


def print_help(prog: str, about: str, *defaults: Any) -> None:
    """Prints every flag for the dataclasses `defaults`, with its meaning and its value there."""
    with contextlib.suppress(SystemExit):
        _tyro(prog, ["--help"], [type(default) for default in defaults], about, defaults)


def flag_name(key: str) -> str:
    return "--" + key.replace("_", "-")


def as_words(value: Any) -> list[str]:
    """A value as its flag takes it, word by word."""
    if isinstance(value, tuple):
        return [str(item) for item in value] or ["[]"]
    if isinstance(value, Mapping):
        return [json.dumps(value)]
    if value is None or isinstance(value, bool):
        return [str(value).lower()]
    return [str(value)]


def _unknown(prog: str, words: Sequence[str], keys: Sequence[str]) -> UsageError:
    told = []
    for word in words:
        if re.match("--?[a-zA-Z]", word):
            name = _hyphens(word).partition("=")[0]
            negation, key = re.fullmatch("--?(no-)?(.*)", name).groups()  # type: ignore[union-attr]
            shown = _false_flag if negation else flag_name
            see = f"see {prog} --help"
            hint = did_you_mean_key(key.replace("-", "_"), keys, see, shown=shown)
            told.append(f"unknown option {name}; {hint}")
    if told:
        return UsageError("; ".join(dict.fromkeys(told)))
    meant = _flag_for(words[0]) if "preset" in keys else ""
    hint = f"did you mean {meant} {words[0]}?" if meant else f"see {prog} --help"
    return UsageError(f"unexpected argument {words[0]!r}; {hint}")


def _flag_for(word: str) -> str:
    """The flag that somebody meant who gave its value alone, or ""."""
    if word in preset_names():
        return "--preset"
    if word.endswith((".yaml", ".yml")):
        return "--config"
    return "--env.id" if re.search(r"-v\d+$", word) else ""


def _require_once(words: Sequence[str]) -> None:
    """A second preset or file would replace the first as a whole, which nobody means."""
    for flag in ("--preset", "--config"):
        if sum(word.partition("=")[0] == flag for word in words) > 1:
            raise UsageError(
                f"{flag} is given twice, a run has one; join what they set in one --config file"
            )


def _false_flag(key: str) -> str:
    return re.sub(r"([^.-][^.]*)$", r"no-\1", flag_name(key))


_BOOLS = [key for key, type_ in key_types(Config).items() if plain_type(type_)[0] is bool]
_FALSE = {  # --learner.no-double and --no-learner.double: --learner.double=false
    form: f"{flag_name(key)}=false"
    for key in _BOOLS
    for form in (_false_flag(key), f"--no-{flag_name(key)[2:]}")
}


def _hyphens(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _tyro(
    prog: str,
    words: Sequence[str],
    kinds: Sequence[type],
    about: str = "",
    defaults: Sequence[Any] = (),
) -> tuple[dict[str, Any], list[str]]:
    """By kind and field what was given, or the default; and the words that nothing knows."""
    registry = rules.ConstructorRegistry()
    registry.primitive_rule(_as_words)
    registry.struct_rule(_as_dict)
    fields = [(kind.__name__, Annotated[_marked(kind)]) for kind in kinds]
    together: Any = dataclasses.make_dataclass("Flags", fields)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                together,
                prog=prog,
                description=about or " ".join((kinds[0].__doc__ or "").split()),
                args=words,
                default=together(*defaults) if defaults else tyro.MISSING_NONPROP,
                return_unknown_args=True,
                config=(tyro.conf.PositionalRequiredArgs,),
                registry=registry,
            )
    except SystemExit as ended:
        if not ended.code:
            raise
    box = " ".join(said.getvalue().splitlines()[1:])  # under its title; ASCII where it must be
    text = " ".join(re.sub("[─│╭╮╰╯]|-{3,}", " ", box).split())
    if missing := re.match(r"Missing from [^:]*: (\S+)", text):
        text = f"{missing[1]} is missing; see {prog} --help"
    elif missing := re.match(r"Missing value for argument '(?:\(')?(?:\w+\.)?([^']*)'", text):
        name = missing[1] if missing[1].startswith("-") else missing[1].upper()
        text = f"{name} needs a value; see {prog} --help"
    raise UsageError(text)


def _marked(kind: type) -> tuple[Any, ...]:
    """No kind's name is in its flags; see `read_flags` for those of bools."""
    markers: list[Any] = [kind, tyro.conf.arg(name="")]
    if kind is Config:
        markers.append(tyro.conf.FlagConversionOff)
    elif kind.__module__.startswith("distdqn.cli."):
        markers.append(tyro.conf.FlagCreatePairsOff)  # nobody needs --no-json
    return tuple(markers)


def _as_words(info: rules.PrimitiveTypeInfo) -> rules.PrimitiveConstructorSpec[Any] | None:
    """tyro's rule for one value: its words are kept as they are."""
    bare, optional = plain_type(info.type)
    kind = get_origin(bare) or bare
    metavar = _metavar(bare)
    is_switch = kind is bool and tyro.conf.FlagConversionOff not in info.markers
    if is_switch or metavar is None:
        return None  # tyro's own
    return rules.PrimitiveConstructorSpec(
        nargs="*" if kind in (tuple, bool) else 1,
        metavar=metavar + ("|none" if optional else ""),
        instance_from_str=_Words,
        is_instance=lambda value: True,
        str_from_instance=as_words,
    )


def _metavar(bare: Any) -> str | None:
    """What stands for a value in the help; None for a type that no flag has."""
    kind = get_origin(bare) or bare
    if kind is Literal:
        return "|".join(get_args(bare))
    if kind is tuple:
        item = _metavar(plain_type(get_args(bare)[0])[0])
        return f"{item} [{item} ...]"
    return _METAVARS.get(kind)


def _as_dict(info: rules.StructTypeInfo) -> rules.StructConstructorSpec | None:
    """tyro's rule for a dataclass: as its own, but nothing is constructed, and so checked."""
    if not dataclasses.is_dataclass(info.type) or info.type in _asking:
        return None
    _asking.append(info.type)
    try:
        spec = rules.ConstructorRegistry.get_struct_spec(info)  # asks this rule too
    finally:
        _asking.pop()
    assert isinstance(spec, rules.StructConstructorSpec), spec
    texts = _meanings(info.type)
    fields = []
    for field in spec.fields:
        changes: dict[str, Any] = {"helptext": texts.get(field.name, field.helptext)}
        if field.default is tyro.MISSING_NONPROP:  # positional, and called by its own name
            name = tyro.conf.arg(metavar=field.name.upper())
            changes["type"] = Annotated[(field.type, name)]
        fields.append(dataclasses.replace(field, **changes))
    return rules.StructConstructorSpec(lambda **given: given, tuple(fields))


_asking: list[type] = []


def _meanings(kind: type) -> dict[str, str]:
    """By field, what a class docstring's lines "name: meaning" say, continued ones joined.

    Several fields with one meaning stand as "one, other: meaning".
    """
    found: dict[str, str] = {}
    lines = re.sub(r"\n {2,}", " ", inspect.getdoc(kind) or "")
    for names, meaning in re.findall(r"^(\w+(?:, \w+)*): +(.*)", lines, re.MULTILINE):
        found |= dict.fromkeys(names.split(", "), meaning)
    return found


def _given(prog: str, kind: Any, tree: Mapping[str, Any], prefix: str) -> Iterator[Any]:
    """What was given, of all that tyro found, by dotted key."""
    types = field_types(kind)
    for field in dataclasses.fields(kind):
        key, value, annotation = prefix + field.name, tree[field.name], types[field.name]
        if isinstance(value, _Words):
            yield key, _read_value(prog, key, value, annotation)
        elif is_section(annotation):
            yield from _given(prog, annotation, value, f"{key}.")
        elif isinstance(value, bool) and value != field.default:
            yield key, value


def _read_value(prog: str, key: str, words: list[str], annotation: Any) -> Any:
    """Words as YAML would have them, where text alone does not say it.

    Numbers and schedules stay text: YAML 1.1 would read `010` as 8 and `1:0:50` as 3650.
    """
    import yaml

    bare, optional = plain_type(annotation)
    text = " ".join(words)
    if not words and bare is not bool:
        raise UsageError(f"{flag_name(key)} needs a value; see {prog} --help")
    if optional and text.lower() in ("none", "null"):
        return None
    if bare == tuple[Call, ...] and not text.startswith("["):
        return words
    if get_origin(bare) is tuple:
        text = text if text.startswith("[") else f"[{', '.join(words)}]"
    elif bare is bool:
        text = text or "true"
    elif get_origin(bare) is not Mapping:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{flag_name(key)} is {text!r}, not JSON or YAML") from None
