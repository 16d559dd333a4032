"""What a configured value may be: types, ranges, schedules.

A field's annotation is the only statement of what it accepts. YAML, flags and Python
all end in `settle`, so each of them is refused with the same words.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from distdqn.config.calls import FORM, Call, call_text
from distdqn.config.suggestions import did_you_mean
from distdqn.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:  # typing's own came with Python 3.11

    def dataclass_transform(**_):
        return lambda decorator: decorator


_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number, or of each number in a schedule, tuple or mapping.

    so: what would follow from a value outside; the error's last words.
    low, high: inclusive bounds; `low` is exclusive where `above`.
    """

    so: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        lower = f"above {self.low:g}" if self.above else f"at least {self.low:.12g}"
        return lower if self.high == math.inf else f"{lower} and at most {self.high:.12g}"


@dataclass_transform(frozen_default=True)
def section(prefix: str) -> Callable[[type[_T]], type[_T]]:
    """Makes a frozen dataclass that settles its fields on construction.

    A `__post_init__` of its own comes after that.
    prefix: of its keys, "replay." for `replay.capacity`.
    """

    def decorate(kind: Any) -> type[_T]:
        own = kind.__dict__.get("__post_init__", lambda self: None)

        def settle_and_check(self: Any) -> None:
            settle(self, prefix)
            own(self)

        kind.__post_init__ = settle_and_check
        return dataclasses.dataclass(frozen=True)(kind)

    return decorate


@section("schedule.")
class Schedule:
    """A value linear in the global env steps, constant after its end.

    value(t) = start + (end - start) * min(t / env_steps, 1)

    start, end: values at step 0 and from step `env_steps` on.
    env_steps: length in env steps over all workers, at least 1.
    fraction: length as a share of the run's `total_env_steps`, in place of `env_steps`; the
      schedule has values once `over` has said of how many.
    """

    start: float
    end: float
    env_steps: Annotated[int | None, Range("the value could not move from start to end", 1)] = None
    fraction: Annotated[
        float | None, Range("it is a share of total_env_steps", 0, 1, above=True)
    ] = None

    def __post_init__(self) -> None:
        if (self.env_steps is None) == (self.fraction is None):
            given = "neither" if self.fraction is None else "both"
            raise ConfigError(
                f"a schedule has {given} of env_steps and fraction, must have one: its length"
            )

    @classmethod
    def constant(cls, value: float) -> "Schedule":
        return cls(value, value, 1)

    def over(self, total_env_steps: int) -> "Schedule":
        """The schedule in a run of so many env steps, its length in env steps, at least 1."""
        if self.fraction is None:
            return self
        return Schedule(self.start, self.end, max(1, round(self.fraction * total_env_steps)))

    def at(self, env_steps: int) -> float:
        """The value after `env_steps` env steps; exactly `end` from the schedule's end on."""
        assert self.env_steps is not None, "a fraction of what? see `over`"
        if env_steps >= self.env_steps:
            return self.end
        return self.start + (self.end - self.start) * max(env_steps, 0) / self.env_steps

    def __str__(self) -> str:
        """`0.05` if constant, else `1.0:0.05:250000` or `1.0:0.05:30%`, as flags have it."""
        if self == Schedule.constant(self.start):
            return repr(self.start)
        length = self.env_steps if self.fraction is None else f"{100 * self.fraction:.12g}%"
        return f"{self.start!r}:{self.end!r}:{length}"


@functools.cache
def field_types(kind: type) -> Mapping[str, Any]:
    """The annotation of each field of a dataclass, with its `Range`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def settle(section: object, prefix: str) -> None:
    """Brings every field of a frozen dataclass to its type and checks its range.

    Raises ConfigError, one line with the dotted key, the value, the bound and what follows.
    """
    kind: Any = type(section)
    for name, annotation in field_types(kind).items():
        value = coerce(getattr(section, name), annotation, prefix + name)
        object.__setattr__(section, name, value)


def plain_type(annotation: Any) -> tuple[Any, bool]:
    """Without its `Range` and `None`: the bare type, and whether `None` is allowed."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    options = get_args(annotation)
    if get_origin(annotation) not in (Union, types.UnionType) or type(None) not in options:
        return annotation, False
    (bare,) = (option for option in options if option is not type(None))
    return bare, True


def is_section(annotation: Any) -> bool:
    """Whether a field holds fields of its own, with keys below its key."""
    return dataclasses.is_dataclass(annotation) and annotation is not Schedule


def coerce(value: Any, annotation: Any, key: str) -> Any:
    """The value in the annotated type and range.

    Numbers may come as text: YAML 1.1 reads `1e-4`, without a dot, as text. Raises ConfigError,
    which names `key`, the value, what it must be, and what follows otherwise.
    """
    bare, optional = plain_type(annotation)
    if value is None and optional:
        return None
    try:
        result = _READERS.get(get_origin(bare) or bare, _instance)(value, bare, key)
    except _Refused as refused:
        hint = " (none is allowed too)" if optional else ""
        raise ConfigError(f"{key} is {value!r}, must be {refused}{hint}") from None
    if get_origin(annotation) is Annotated:
        _check_range(result, get_args(annotation)[1], key)
    return result


class _Refused(Exception):
    """What the value would have to be."""


def _check_range(value: Any, bounds: Range, key: str) -> None:
    numbers: Any = value if isinstance(value, tuple) else (value,)
    if isinstance(value, Schedule):
        numbers = (value.start, value.end)
    elif isinstance(value, Mapping):
        numbers = value.values()
    if not all(bounds.holds(number) for number in numbers):
        shown = str(value) if isinstance(value, Schedule) else repr(value)
        raise ConfigError(f"{key} is {shown}, must be {bounds}: {bounds.so}")


# Readers: (value, bare type, key) -> the value in that type; _Refused where it is none.


def _integer(value: Any, *_: Any) -> int:
    number = _number(value, what="a whole number")
    if not number.is_integer():
        raise _Refused("a whole number")
    return int(value) if isinstance(value, int) else int(number)


def _number(value: Any, *_: Any, what: str = "a number") -> float:
    try:
        number = float("no number" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        raise _Refused(what) from None
    if not math.isfinite(number):
        raise _Refused(f"{what}, and finite")
    return number


def _choice(value: Any, bare: Any, key: str) -> str:
    options = get_args(bare)
    if value in options:
        return value
    hint = did_you_mean(str(value), options, "")
    raise _Refused("; ".join(filter(None, (" or ".join(options), hint))))


def _items(value: Any, bare: Any, key: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _Refused("a list")
    return tuple(coerce(item, get_args(bare)[0], key) for item in value)


def _mapping(value: Any, bare: Any, key: str) -> dict[str, Any]:
    """A copy, so that a caller's later change does not pass the checks by."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise _Refused("a mapping from names to values")
    kind = get_args(bare)[1]
    if kind is Any:
        return dict(value)
    return {name: coerce(item, kind, f"{key}.{name}") for name, item in value.items()}


def _schedule(value: Any, *_: Any) -> Schedule:
    form = (
        "a number, {start, end, env_steps}, {start, end, fraction}, START:END:ENV_STEPS or "
        "START:END:30%"
    )
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str) and value.count(":") == 2:
        value = _schedule_of_text(value)
    if not isinstance(value, Mapping):
        return Schedule.constant(_number(value, what=form))
    if value.keys() not in ({"start", "end", "env_steps"}, {"start", "end", "fraction"}):
        raise _Refused(form)
    try:
        return Schedule(**value)
    except ConfigError as error:
        raise _Refused(f"{form} ({error})") from None


def _call(value: Any, *_: Any) -> str:
    try:
        return call_text(value)
    except ValueError as error:
        raise _Refused(f"{FORM} or {{NAME: {{ARGUMENT: VALUE}}}}: {error}") from None


def _schedule_of_text(text: str) -> dict[str, Any]:
    """The fields in START:END:ENV_STEPS or START:END:30%, as text where they are no number."""
    start, end, length = text.split(":")
    share = length.strip().removesuffix("%")
    if share == length.strip():
        return {"start": start, "end": end, "env_steps": length}
    try:
        return {"start": start, "end": end, "fraction": float(share) / 100}
    except ValueError:
        return {"start": start, "end": end, "fraction": length}


def _instance(value: Any, bare: Any, key: str) -> Any:
    if not isinstance(value, bare) or value == "":
        text = "text (in YAML, put a number in quotes to have it as text)"
        text = "text that is not empty" if value == "" else text
        raise _Refused({bool: "true or false", str: text}.get(bare, f"a {bare.__name__}"))
    return value


_READERS: Mapping[Any, Callable[..., Any]] = {
    int: _integer,
    float: _number,
    Literal: _choice,
    tuple: _items,
    Mapping: _mapping,
    Schedule: _schedule,
    Call: _call,
}
