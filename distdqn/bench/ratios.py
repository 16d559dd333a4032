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

_NOT_COMPARED = ("load_average", "distdqn")  # differs on one machine; is told by itself


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


def compare(old: Result, new: Result) -> Comparison:
    """Both of one benchmark."""
    before = {case.label: case for case in old.cases}
    after = {case.label: case for case in new.cases}
    pairs = [(before[label], case) for label, case in after.items() if label in before]
    alike = [(a, b) for a, b in pairs if (a.unit, a.better) == (b.unit, b.better)]
    return Comparison(
        old_created=old.created,
        ratios=tuple(_ratio(*pair) for pair in alike),
        only_old=tuple(label for label in before if label not in after),
        only_new=tuple(label for label in after if label not in before),
        warnings=(
            *_differences("versions of distdqn", {"": old.version}, {"": new.version}),
            *_differences("machines", old.machine, new.machine),
            *_differences("options", old.options, new.options),
            *(f"{b.label}: in another unit, not compared" for a, b in pairs if (a, b) not in alike),
        ),
    )


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
        old_share=old.share.median if old.share else None,
        new_share=new.share.median if new.share else None,
    )


def _over(above: float, below: float) -> float:
    """above / below; a time of 0 is infinitely good, and 0 of 0 no change."""
    if below:
        return above / below
    return float("inf") if above else 1.0


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line, or none where nothing differs; JSON's lists equal tuples."""
    before, after = ({name: plain_text(value) for name, value in x.items()} for x in (old, new))
    changes = [
        f"{name} {before.get(name)} -> {after.get(name)}".strip()
        for name in {**before, **after}
        if name not in _NOT_COMPARED and before.get(name) != after.get(name)
    ]
    return [f"the {what} differ: {', '.join(changes)}"] if changes else []


def plain_text(value: Any) -> str:
    """Items of a list in a row."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
