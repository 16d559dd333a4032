"""What a person sees of a run: a live picture, or a line now and then.

Everything goes to stderr. On a terminal the picture is redrawn twice a second; elsewhere
(a log file, a job) it is one plain line every five seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distdqn.reporting.words import clock, in_words
from distdqn.telemetry.status import DECLARED, RunStatus

_REDRAW_PERIOD_S = 0.5
_LINE_PERIOD_S = 5.0
_TROUBLE = "not dim bold red"
_LINE = (
    "{state} {elapsed_s}: {env_steps} of {total_env_steps} env steps ({done}, {eta_s} left), "
    "{gradient_steps} updates, return {train_return_mean} (evaluation {eval_return_mean}, "
    "best {best_eval_return_mean}), {samples_per_insert} samples per insert, "
    "{env_steps_per_s} env steps/s, {gradient_steps_per_s} updates/s, "
    "workers {workers_alive}/{workers_target}, shards {shards_alive}/{shards_target}"
)

_ROWS: dict[str, dict[str, str]] = {}  # names and labels of the metrics by row
for _name, _shown in DECLARED.items():
    if _shown.get("row"):
        _ROWS.setdefault(_shown["row"], {})[_name] = _shown["label"]
_COUNTED_TROUBLE = _ROWS.pop("trouble")


class Progress:
    """The display of one run; a context manager.

    It has no thread: it draws when it is updated.

    samples_per_insert: as configured, shown beside what is achieved.
    console: where it goes; stderr by default.
    enabled: False makes every call do nothing.
    max_lines_per_s: of `say`; what comes faster is counted, not shown.
    """

    def __init__(
        self,
        samples_per_insert: float | None = None,
        console: Console | None = None,
        enabled: bool = True,
        max_lines_per_s: float = 20.0,
    ):
        self._configured = samples_per_insert
        self._console = console or Console(stderr=True)
        self._enabled, self._max_lines_per_s = enabled, max_lines_per_s
        self._live: Live | None = None
        self._next_update = 0.0
        self._status: RunStatus | None = None
        self._allowance, self._allowed_at, self._unsaid = max_lines_per_s, 0.0, 0

    def __enter__(self) -> Progress:
        if self._enabled and self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, status: RunStatus) -> None:
        """Shows `status` when the last one has stood for long enough."""
        self._status, now = status, time.monotonic()
        if now >= self._next_update:
            self._next_update = now + (_REDRAW_PERIOD_S if self._live else _LINE_PERIOD_S)
            self._show()

    def say(self, line: str) -> None:
        """One line for the user, above the picture; too many in a second are counted only."""
        now = time.monotonic()
        earned = (now - self._allowed_at) * self._max_lines_per_s
        self._allowance = min(self._allowance + earned, self._max_lines_per_s)
        self._allowed_at = now
        if self._allowance < 1.0:
            self._unsaid += 1
            return
        self._allowance -= 1.0
        if self._unsaid:
            line = f"({self._unsaid} lines left out) {line}"
            self._unsaid = 0
        self._print(" ".join(line.split()))

    def _show(self) -> None:
        if self._live is not None and self._status is not None:
            self._live.update(picture(self._status, self._configured), refresh=True)
        elif self._status is not None:
            self._print(plain_line(self._status))

    def _print(self, line: str) -> None:
        if self._enabled:
            self._console.print(Text(line), soft_wrap=True)


def plain_line(status: RunStatus) -> str:
    """A status as one line of text."""
    return ", ".join([_LINE.format_map(_told_of(status)), *_troubles(status)])


def picture(status: RunStatus, configured: float | None = None) -> RenderableType:
    """A status as a bar and a row for each that the metrics name.

    configured: samples per insert, None to leave it out.
    """
    told = _told_of(status)
    beside = {  # what stands behind a figure
        "env_steps": " of {total_env_steps}",
        "samples_per_insert": "" if configured is None else f" of {configured:g}",
        "q_abs_max": " of {q_bound}" if math.isfinite(status.q_bound) else "",
        "staleness_p50": ", p95 {staleness_p95}",
        "workers_alive": " of {workers_target}",
        "shards_alive": " of {shards_target}",
    }
    bad = {
        "q_abs_max": status.soft_divergence,
        "workers_alive": status.workers_alive < status.workers_target,
        "shards_alive": status.shards_alive < status.shards_target,
    }

    def fact(name: str, label: str) -> Text:
        value = told[name] + beside.get(name, "").format_map(told)
        style = _TROUBLE if bad.get(name) else "not dim"
        return Text.assemble((f"{label} " if label else "", "dim"), (value, style))

    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim", no_wrap=True)
    for row, metrics in _ROWS.items():
        grid.add_row(row, *(fact(name, label) for name, label in metrics.items()))
    lines: list[RenderableType] = [_bar(status, told), grid]
    if troubles := _troubles(status):
        lines.append(Text(f"trouble   {', '.join(troubles)}", style=_TROUBLE))
    return Group(*lines)


def _bar(status: RunStatus, told: Mapping[str, str]) -> RenderableType:
    bar = ProgressBar(total=status.total_env_steps, completed=status.env_steps, width=36)
    left = Text("{elapsed_s}, {eta_s} left".format_map(told), style="dim")
    line = Table.grid(padding=(0, 2))
    line.add_row(Text(f"{status.state:8}", "bold"), bar, Text(told["done"], "bold"), left)
    return line


def _troubles(status: RunStatus) -> list[str]:
    counts = {label: getattr(status, name) for name, label in _COUNTED_TROUBLE.items()}
    counts["transitions refused"] = status.transitions.refused
    counts["transitions lost"] = status.transitions.lost
    return [f"{label} {number:,}" for label, number in counts.items() if number]


def _told_of(status: RunStatus) -> dict[str, str]:
    done = min(status.env_steps / max(status.total_env_steps, 1), 1.0)
    told = in_words(vars(status) | {"compiled": "compiled" if status.compiled else "eager"})
    return told | {"done": f"{done:.0%}", "eta_s": clock(status.eta_s)}
