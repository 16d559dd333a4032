"""What a person sees of a run: a live picture, or a line now and then.

Everything goes to stderr. On a terminal the picture is redrawn twice a second; elsewhere
(a log file, a job) it is one plain line every five seconds. What the run waits for, such as
Ray's start, is told with its seconds; nothing lasts five seconds without a word.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distdqn.reporting.words import clock, in_words
from distdqn.telemetry.status import DECLARED, RunStatus

_REDRAW_PERIOD_S = 0.5
_LINE_PERIOD_S = 5.0
_SILENCE_S = 4.0  # before a word on what is waited for, twice a second looked at
_WORTH_A_LINE_S = 0.5
_BAR_WIDTH, _LEAST_BAR_WIDTH = 36, 8
_GAP = 2  # columns between facts
_TROUBLE = "not dim bold red"
_LINE = (
    "{state} {elapsed_s}: {env_steps} of {total_env_steps} env steps ({done}{left}), "
    "{gradient_steps} updates, return {train_return_mean} (evaluation {eval_return_mean}, "
    "best {best_eval_return_mean}), {samples_per_insert} samples per insert, "
    "now {env_steps_per_s} env steps/s and {gradient_steps_per_s} updates/s, "
    "workers {workers_alive}/{workers_target}, shards {shards_alive}/{shards_target}"
)

_ROWS: dict[str, dict[str, str]] = {}  # names and labels of the metrics by row
for _name, _shown in DECLARED.items():
    if _shown.get("row"):
        _ROWS.setdefault(_shown["row"], {})[_name] = _shown["label"]
_COUNTED_TROUBLE = _ROWS.pop("trouble")


class Progress:
    """The display of one run; a context manager.

    It draws when it is updated, and a thread of its own counts the seconds of what lasts.

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
        self._next_update = self._printed_at = self._heard_at = 0.0
        self._status: RunStatus | None = None
        self._drawn: RunStatus | None = None
        self._stages: list[tuple[str, float]] = []
        self._allowance, self._allowed_at, self._unsaid = max_lines_per_s, 0.0, 0
        self._is_over = threading.Event()
        self._counting = threading.Thread(target=self._count, daemon=True)

    def __enter__(self) -> Progress:
        if self._enabled:
            self._printed_at = time.monotonic()
            if self._console.is_terminal:
                self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)
                self._live.start()
            self._counting.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            self._is_over.set()
            self._counting.join()
        if self._status is not None:
            elapsed_s = self._status.elapsed_s + time.monotonic() - self._heard_at
            self._status = dataclasses.replace(self._status, state="ended", elapsed_s=elapsed_s)
        self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextlib.contextmanager
    def stage(self, doing: str) -> Iterator[None]:
        """Shows what the run is doing, with the seconds so far; says how long it took.

        Says nothing of what took no time, or raised.
        """
        began = time.monotonic()
        self._stages.append((doing, began))
        self._draw()
        try:
            yield
        finally:
            self._stages.pop()
            self._heard_at = time.monotonic()
            self._draw()
        if (seconds := self._heard_at - began) >= _WORTH_A_LINE_S:
            self._print(f"{doing}: {seconds:.1f} s")

    def update(self, status: RunStatus) -> None:
        """Shows `status` when the last one has stood for long enough."""
        self._status, self._heard_at = status, (now := time.monotonic())
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
        self._drawn = self._status
        if self._live is not None:
            self._draw()
        elif self._status is not None:
            self._print(plain_line(self._status))

    def _draw(self) -> None:
        if self._live is not None:
            lines: list[RenderableType] = []
            if self._drawn is not None:
                lines.append(picture(self._drawn, self._configured))
            if waited := self._waited():
                lines.append(Text(waited, "dim"))
            self._live.update(Group(*lines), refresh=True)

    def _waited(self) -> str:
        """What is being waited for, and how long so far; "" where nothing is."""
        now = time.monotonic()
        if self._is_over.is_set():
            return ""
        for doing, began in self._stages[-1:]:
            return f"{doing}: {now - began:.0f} s"
        if self._heard_at and now - self._heard_at >= _SILENCE_S:
            return f"no news of the run: {now - self._heard_at:.0f} s"
        return ""

    def _count(self) -> None:
        """The thread: redraws; where there is no terminal, a line when none came for long."""
        while not self._is_over.wait(_REDRAW_PERIOD_S):
            self._draw()
            silent = time.monotonic() - self._printed_at >= _SILENCE_S
            if self._live is None and silent and (waited := self._waited()):
                self._print(f"{waited} so far")

    def _print(self, line: str) -> None:
        if self._enabled:
            self._printed_at = time.monotonic()
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

    rows = {
        row: [fact(name, label) for name, label in metrics.items()]
        for row, metrics in _ROWS.items()
    }
    lines: list[RenderableType] = [_Bar(status, told), _Facts(rows)]
    if troubles := _troubles(status):
        lines.append(_Facts({"trouble": [Text(each, _TROUBLE) for each in troubles]}))
    return Group(*lines)


class _Facts:
    """Rows of facts, each behind its label; in columns, or where there is no room, in lines.

    Neither a label nor a fact is broken where it fits a line of its own.
    """

    def __init__(self, rows: Mapping[str, Sequence[Text]]):
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        label_width = max(map(len, _ROWS))
        room, columns = options.max_width - label_width - _GAP, self._columns()
        in_columns = sum(columns) + _GAP * (len(columns) - 1) <= room
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(style="dim", no_wrap=True, min_width=label_width)
        for label, facts in self._rows.items():
            for number, line in enumerate([facts] if in_columns else _lines(facts, room)):
                cells = line if in_columns else [Text(" " * _GAP).join(line)]
                grid.add_row("" if number else label, *cells)
        yield grid

    def _columns(self) -> list[int]:
        """Width of each, where all facts of a row stand side by side."""
        rows = [[fact.cell_len for fact in facts] for facts in self._rows.values()]
        return [max(column) for column in itertools.zip_longest(*rows, fillvalue=0)]


def _lines(facts: Sequence[Text], room: int) -> list[list[Text]]:
    """As many facts in each line as it has room for, one at least."""
    lines: list[list[Text]] = []
    left = 0
    for fact in facts:
        if fact.cell_len > left:
            lines.append([])
            left = room
        lines[-1].append(fact)
        left -= fact.cell_len + _GAP
    return lines


class _Bar:
    """How far the run is; the bar itself is left out where there is no room for it."""

    def __init__(self, status: RunStatus, told: Mapping[str, str]):
        self._status, self._told = status, told

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        status, told = self._status, self._told
        words = [
            Text(f"{status.state:8}", "bold"),
            Text(told["done"], "bold"),
            Text("{elapsed_s}{left}".format_map(told), "dim"),
        ]
        room = options.max_width - sum(word.cell_len + 2 for word in words)
        if room >= _LEAST_BAR_WIDTH:
            width = min(room, _BAR_WIDTH)
            bar = ProgressBar(status.total_env_steps, status.env_steps, width=width)
            line = Table.grid(padding=(0, 2, 0, 0))
            line.add_row(words[0], bar, *words[1:])
            yield line
        else:
            yield Text("  ").join(words)


def _troubles(status: RunStatus) -> list[str]:
    counts = {label: getattr(status, name) for name, label in _COUNTED_TROUBLE.items()}
    counts["transitions refused"] = status.refused_by_fault
    counts["transitions lost"] = status.transitions.lost
    return [f"{label} {number:,}" for label, number in counts.items() if number]


def _told_of(status: RunStatus) -> dict[str, str]:
    done = min(status.env_steps / max(status.total_env_steps, 1), 1.0)
    told = in_words(vars(status) | {"compiled": "compiled" if status.compiled else "eager"})
    is_told = status.state not in ("stopping", "ended") and 0 < status.eta_s < math.inf
    left = f", {clock(status.eta_s)} left" if is_told else ""
    return told | {"done": f"{done:.0%}", "left": left}
