"""Figures in words, as the display and the closing table show them."""

import collections
import datetime
import math
from collections.abc import Mapping
from typing import Any

from distdqn.telemetry.status import DECLARED


def in_words(values: Mapping[str, Any]) -> dict[str, str]:
    """Every figure in words, a dash for what is not known or not there."""
    told = collections.defaultdict(lambda: "-")
    for name, value in values.items():
        if isinstance(value, str | int | float | tuple) and value != () and value == value:
            form = DECLARED[name].get("form") if name in DECLARED else None
            told[name] = _text(value, form)  # what is nan is not itself
    return told


def _text(value: Any, form: str | None) -> str:
    if isinstance(value, tuple):
        return f"{min(value):,} to {max(value):,}"
    if value == math.inf:
        return "infinite"
    if form == "clock":
        return clock(value)
    if isinstance(value, str | bool):
        return str(value)
    return format(value, form or (",d" if isinstance(value, int) else ",.1f"))


def clock(seconds: float) -> str:
    """`m:ss`, with hours where there are any."""
    if not math.isfinite(seconds):
        return "-"
    told = str(datetime.timedelta(seconds=int(seconds)))
    return told.removeprefix("0:").removeprefix("0") if told.startswith("0:") else told
