"""What a throughput benchmark was asked and found, and on which machine.

A `Result` is a list of cases, each a figure with its spread beside the limit that was
measured in the same run. It is what `--json` prints, what `--compare` reads, and what
tables and plots are drawn from. Versions are read from what is installed, without importing
it, so that a benchmark loads no more than it measures.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from distdqn.config.values import coerce, field_types
from distdqn.errors import ConfigError, DistDQNError
from distdqn.machine.cpu import cpu_model, usable_cores
from distdqn.version import __version__

FORMAT = 1
_PACKAGES = ("torch", "ray", "gymnasium", "numpy", "numba")
_LOAD = tuple(round(load, 2) for load in os.getloadavg())  # before the benchmark adds its own

Setting = int | float | str | bool


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Median, smallest and largest of the repetitions of one measurement."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """values: one for each repetition, at least one."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One thing measured with one choice of settings.

    name: what was done, as "sample" or "collect".
    settings: what was varied, as {"capacity": 1_000_000, "kind": "prioritized"}.
    unit: of `value` and `limit`, as "transitions/s" or "ms".
    value: what was reached.
    better: whether a "higher" or a "lower" value is the better one.
    limit: what cannot be passed on this machine, measured in the same run, in turn with
      `value`; None where there is no such thing.
    limit_name: what that is, as "memcpy of the same bytes".
    share: of the limit reached, repetition by repetition; 1 is all of it.
    cpu_s: seconds on a CPU per unit of work, of all threads; None where not measured.
    peak_bytes: largest memory of the processes that did it; None where not measured.
    details: further numbers or words, shown as they are.
    """

    name: str
    settings: Mapping[str, Setting]
    unit: str
    value: Figure
    better: Literal["higher", "lower"] = "higher"
    limit: Figure | None = None
    limit_name: str = ""
    share: Figure | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, settings: Mapping[str, Setting], unit: str, values: Sequence[float],
        limits: Sequence[float] = (), limit_name: str = "", **fields: Any,
    ) -> Case:  # fmt: skip
        """values, limits (if there are any): one for each repetition; fields: others of a case."""
        if limits:
            share = share_of(values, limits, fields.get("better", "higher"))
            fields |= {"limit": Figure.of(limits), "limit_name": limit_name, "share": share}
        return cls(name, settings, unit, Figure.of(values), **fields)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Case:
        given = {name: document[name] for name in ("value", "limit", "share")}
        figures = {name: Figure(**fields) for name, fields in given.items() if fields is not None}
        return cls(**document | figures)

    @property
    def label(self) -> str:
        """Name and settings in one line; the same case in two results has the same label."""
        return " ".join([self.name, *(f"{name}={value}" for name, value in self.settings.items())])


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """All cases of one benchmark.

    benchmark: as in `distdqn bench NAME`.  version: of distdqn.  created: ISO 8601.
    machine: processor, cores, memory, GPU, system and versions.
    options: how it was called.  notes: lines for a person.
    """

    benchmark: str
    version: str
    created: str
    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, document: Any) -> Result:
        """The result that `to_json` wrote.

        Raises DistDQNError, one line, for anything else.
        """
        try:
            if document["format"] != FORMAT:
                raise DistDQNError(
                    f"a benchmark result of format {document['format']!r}; this version of "
                    f"distdqn reads format {FORMAT}: measure again with it"
                )
            fields = {name: document[name] for name in cls.__dataclass_fields__}
            cases = tuple(Case.from_json(case) for case in document["cases"])
            return cls(**fields | {"notes": tuple(document["notes"]), "cases": cases})
        except (KeyError, TypeError, AttributeError) as error:
            raise DistDQNError(
                f"not a benchmark result: {type(error).__name__} {error}; "
                "give a file that `distdqn bench NAME --json` has written"
            ) from error


def share_of(values: Sequence[float], limits: Sequence[float], better: str = "higher") -> Figure:
    """Share of the limit in each repetition: value / limit, limit / value if lower is better."""
    above, below = (values, limits) if better == "higher" else (limits, values)
    return Figure.of([a / b for a, b in zip(above, below, strict=True)])


def with_values(options: Any, values: Mapping[str, Any]) -> Any:
    """A benchmark's options with some changed, from text too.

    Numbers are above 0; or 0, where the default is, or the field's metadata say {"least": 0}.

    Raises:
      ConfigError: naming the flag, its value, and what it must be.
    """
    kind: Any = type(options)
    types, read = field_types(kind), {}
    for field in dataclasses.fields(options):
        if field.name not in values:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        value = coerce(values[field.name], types[field.name], flag)
        zero_too = field.metadata.get("least", field.default) == 0
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) in (int, float) and (number < 0 or (number == 0 and not zero_too)):
                bound = "at least 0" if zero_too else "above 0"
                raise ConfigError(f"{flag} is {number}, must be {bound}")
        read[field.name] = value
    return dataclasses.replace(options, **read)


def new_result(
    benchmark: str, options: Any, cases: Sequence[Case], notes: Sequence[str], **more: Any
) -> Result:
    """A result of now and here.

    options: the benchmark's dataclass.
    more: options that are not among these, as a run's configuration.
    """
    return Result(
        benchmark=benchmark,
        version=__version__,
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        machine=describe_machine(),
        options=dataclasses.asdict(options) | more,
        cases=tuple(cases),
        notes=tuple(notes),
    )


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in bytes, GPU, system, load at the start, and versions.

    A GPU is described where torch is loaded and sees one.
    """
    torch: Any = sys.modules.get("torch")
    has_gpu = torch is not None and torch.cuda.is_available()
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "cuda": torch.version.cuda if has_gpu else None,
        # As "Linux 6.1": what comes after says more about a place than about speed.
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "load_average": list(_LOAD),
        "python": platform.python_version(),
        "distdqn": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
