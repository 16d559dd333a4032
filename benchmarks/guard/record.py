"""The committed ratios, and whether today's have fallen.

An item fails where both its ratios, to the limit and to the reference, lie more than the
tolerance below the record. A slowdown of distdqn shows in both. Where only one has fallen
the other side of it has become faster (a new PyTorch, another memory), or was disturbed.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distdqn.bench.result import Figure
from distdqn.errors import DistDQNError
from guard.turns import Ratios

FORMAT = 1
TOLERANCE = 0.15  # a slowdown of 30 percent lowers a ratio by 23, of 18 percent by 15

_SAME = ("cpu", "cores", "torch", "numpy", "numba")  # else the ratios may differ by themselves


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """Ratios by item, when and on what they were measured, and with which limits.

    limits: what the limit of each item is, for a reader.
    """

    created: str
    machine: Mapping[str, Any]
    ratios: Mapping[str, Ratios]
    limits: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        items = {
            name: {"limit_name": self.limits[name], **dataclasses.asdict(ratios)}
            for name, ratios in self.ratios.items()
        }
        return {
            "format": FORMAT,
            "created": self.created,
            "machine": dict(self.machine),
            "items": items,
        }

    @classmethod
    def from_json(cls, document: Any) -> Record:
        """What `to_json` gave; DistDQNError, one line, for anything else."""
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r}, not {FORMAT}")
            items = document["items"].items()
            ratios = {name: _ratios(item) for name, item in items}
            limits = {name: str(item["limit_name"]) for name, item in items}
            return cls(str(document["created"]), dict(document["machine"]), ratios, limits)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DistDQNError(f"{type(error).__name__}: {error}") from error


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Of one item.

    now, recorded: its ratios; None where it is not measured, or not in the record.
    limit_change, reference_change: now / recorded - 1; None without either.
    ok: whether it may stay so.  words: why, in a few.
    """

    name: str
    now: Ratios | None
    recorded: Ratios | None
    limit_change: float | None
    reference_change: float | None
    ok: bool
    words: str


def compare(now: Mapping[str, Ratios], recorded: Mapping[str, Ratios]) -> list[Verdict]:
    """A verdict for each item of either side, those measured first, in their order."""
    names = [*now, *(name for name in recorded if name not in now)]
    return [_verdict(name, now.get(name), recorded.get(name)) for name in names]


def other_machine(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """One line where the record is of another machine or other libraries, else empty."""
    changes = [
        f"{name} {recorded.get(name)} there, {here.get(name)} here"
        for name in _SAME
        if recorded.get(name) != here.get(name)
    ]
    if not changes:
        return ""
    return (
        f"the record was made elsewhere ({'; '.join(changes)}), so ratios may differ by "
        "themselves; for one of your own: make bench-check UPDATE=1 RECORD=runs/check.json, "
        "before the change that is to be checked, and RECORD=runs/check.json after it"
    )


def read(path: Path) -> Record:
    """The record in a file; DistDQNError, one line, where there is none or a broken one."""
    try:
        return Record.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, DistDQNError) as error:
        raise DistDQNError(
            f"{path} is no record of ratios ({error}); restore it, or measure one: "
            "make bench-check UPDATE=1"
        ) from error


def write(record: Record, path: Path) -> None:
    """Replaces the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(record.to_json(), indent=1) + "\n")
    os.replace(partial, path)


def unsteady(ratios: Mapping[str, Ratios]) -> list[str]:
    """Items whose measurements lie further apart than the tolerance, in both ratios."""
    return [
        name
        for name, both in ratios.items()
        if all(f.max - f.min > TOLERANCE * f.median for f in (both.limit, both.reference))
    ]


def middle_of(several: Sequence[Mapping[str, Ratios]]) -> dict[str, Ratios]:
    """Medians of whole measurements, with the smallest and the largest of them."""
    return {
        name: Ratios(
            *(
                Figure.of([getattr(each[name], side).median for each in several])
                for side in ("limit", "reference")
            )
        )
        for name in several[0]
    }


def _ratios(item: Mapping[str, Any]) -> Ratios:
    ratios = Ratios(Figure(**item["limit"]), Figure(**item["reference"]))
    if not min(ratios.limit.median, ratios.reference.median) > 0:  # a NaN fails too
        raise ValueError(f"ratios must be above 0, got {item}")
    return ratios


def _verdict(name: str, now: Ratios | None, recorded: Ratios | None) -> Verdict:
    if now is None or recorded is None:
        words = "not in the record" if recorded is None else "in the record, not measured"
        return Verdict(name, now, recorded, None, None, False, words)
    changes = {
        "limit": now.limit.median / recorded.limit.median - 1,
        "reference": now.reference.median / recorded.reference.median - 1,
    }
    fallen = [side for side, change in changes.items() if not change >= -TOLERANCE]
    ok = len(fallen) < 2
    words = "slower" if not ok else f"only against the {fallen[0]}" if fallen else ""
    if min(changes.values()) > TOLERANCE:
        words = "faster: record it"
    return Verdict(name, now, recorded, changes["limit"], changes["reference"], ok, words)
