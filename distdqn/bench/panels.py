"""Cases that are shown together: one table, one set of axes.

What all of them share is said once, so that each row shows what tells it apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from distdqn.bench.result import Case


@dataclasses.dataclass(frozen=True, slots=True)
class Panel:
    """Cases of one name, unit and sense.

    shared: what their settings have in common, as text.
    told: for each case, the settings that tell it apart.
    limit_name: of those that have a limit.
    """

    cases: tuple[Case, ...]
    shared: str
    told: tuple[str, ...]
    limit_name: str

    @property
    def title(self) -> str:
        first = self.cases[0]
        return f"{first.name}, {first.unit}{'' if first.better == 'higher' else ', less is better'}"


def panels(cases: Sequence[Case]) -> list[Panel]:
    """In order of appearance."""
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.name, case.unit, case.better), []).append(case)
    return [_panel(group) for group in groups.values()]


def settings_text(settings: Mapping[str, Any]) -> str:
    """`size 1,000,000  kind uniform`; of a bool that is True the name alone."""
    return "  ".join(_setting(name, value) for name, value in settings.items())


def _panel(cases: Sequence[Case]) -> Panel:
    first = cases[0].settings
    common = {
        name: value
        for name, value in first.items()
        if len(cases) > 1 and all(case.settings.get(name) == value for case in cases)
    }
    told = (
        {name: value for name, value in case.settings.items() if name not in common}
        for case in cases
    )
    limits = dict.fromkeys(case.limit_name for case in cases if case.limit and case.limit_name)
    return Panel(
        tuple(cases), settings_text(common), tuple(map(settings_text, told)), "; ".join(limits)
    )


def _setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
