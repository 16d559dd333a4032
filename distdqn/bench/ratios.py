"""A result against an earlier one: how many times as good.

Cases belong together by their label. Ratios of figures from two machines, versions or
sets of options say little: where those differ, it is said. The share of the limit, which
was measured beside each figure, survives a change of machine better.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from distdqn.bench.result import Case, Result

_OF_THE_MOMENT = {"load_average"}  # differs from run to run on one machine


@dataclasses.dataclass(frozen=True, slots=True)
class Ratio:
    """One case in both results.

    times: as good as the old one, above 1 is better: new / old, or old / new where the
      lower value is the better one.
    low, high: the same of the least and most favourable repetitions on both sides; a
      change within them may be chance.
    """

    label: str
    unit: str
    old: float
    new: float
    times: float
    low: float
    high: float
    old_share: float | None
    new_share: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from an older result to a newer one.

    only_old, only_new: labels of cases that the other side lacks.
    warnings: lines that say why the two may not be comparable.
    """

    old_created: str
    ratios: tuple[Ratio, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def compare(old: Result, new: Result) -> Comparison:
    """Both of one benchmark."""
    before = {case.label: case for case in old.cases}
    after = {case.label: case for case in new.cases}
    changed = [label for label in after if label in before and not _alike(before, after, label)]
    both = [label for label in after if label in before and label not in changed]
    return Comparison(
        old_created=old.created,
        ratios=tuple(_ratio(before[label], after[label]) for label in both),
        only_old=tuple(label for label in before if label not in both),
        only_new=tuple(label for label in after if label not in both),
        warnings=(
            *_differences("versions of distdqn", {"": old.version}, {"": new.version}),
            *_differences("machines", old.machine, new.machine, _OF_THE_MOMENT | {"distdqn"}),
            *_differences("options", old.options, new.options),
            *(f"{label}: measured in another unit or sense, not compared" for label in changed),
        ),
    )


def _alike(before: Mapping[str, Case], after: Mapping[str, Case], label: str) -> bool:
    one, other = before[label], after[label]
    return one.unit == other.unit and one.better == other.better


def _ratio(old: Case, new: Case) -> Ratio:
    above, below = (new.value, old.value) if new.better == "higher" else (old.value, new.value)
    return Ratio(
        label=new.label,
        unit=new.unit,
        old=old.value.median,
        new=new.value.median,
        times=_over(above.median, below.median),
        low=_over(above.min, below.max),
        high=_over(above.max, below.min),
        old_share=None if old.share is None else old.share.median,
        new_share=None if new.share is None else new.share.median,
    )


def _over(above: float, below: float) -> float:
    """above / below; a time of 0 is infinitely good, and 0 of 0 no change."""
    if below:
        return above / below
    return float("inf") if above else 1.0


def _differences(
    what: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    ignored: set[str] | frozenset[str] = frozenset(),
) -> list[str]:
    """One line, or none where nothing differs; JSON's lists equal tuples."""
    names = [name for name in {**old, **new} if name not in ignored]
    changes = [
        f"{name} {_shown(old.get(name))} -> {_shown(new.get(name))}".strip()
        for name in names
        if _plain(old.get(name)) != _plain(new.get(name))
    ]
    return [f"the {what} differ: {', '.join(changes)}"] if changes else []


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    value = _plain(value)
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
