"""What a person sees of a run: a live picture, or a line now and then.

Everything goes to stderr. On a terminal the picture is redrawn twice a second; elsewhere
(a log file, a job) it is one plain line every five seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from distdqn.telemetry.status import RunStatus

_REDRAW_PERIOD_S = 0.5
_LINE_PERIOD_S = 5.0
_TROUBLE = "not dim bold red"


class Progress:
    """The display of one run; a context manager.

    total_env_steps: where the bar ends.
    samples_per_insert: as configured, shown beside what is achieved.
    console: where it goes; stderr by default.
    enabled: False makes every call do nothing.
    max_lines_per_s: of `say`; what comes faster is counted, not shown.

    No thread: it draws when it is updated.
    """

    def __init__(
        self,
        total_env_steps: int,
        samples_per_insert: float | None = None,
        console: Console | None = None,
        enabled: bool = True,
        max_lines_per_s: float = 20.0,
    ):
        self._total, self._configured = total_env_steps, samples_per_insert
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._show(self._status)
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, status: RunStatus) -> None:
        """Shows `status` when the last one has stood for long enough."""
        self._status = status
        now = time.monotonic()
        if self._enabled and now >= self._next_update:
            self._next_update = now + (_REDRAW_PERIOD_S if self._live else _LINE_PERIOD_S)
            self._show(status)

    def say(self, line: str) -> None:
        """One line for the user, above the picture; too many in a second are counted only."""
        if not self._enabled:
            return
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

    def _show(self, status: RunStatus) -> None:
        if not self._enabled:
            return
        if self._live is not None:
            self._live.update(picture(status, self._total, self._configured), refresh=True)
        else:
            self._print(plain_line(status, self._total))

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def plain_line(status: RunStatus, total_env_steps: int) -> str:
    """A status as one line of text."""
    return (
        f"{status.state} {_clock(status.elapsed_s)}: "
        f"{status.env_steps:,} of {total_env_steps:,} env steps "
        f"({_percent(status.env_steps / total_env_steps)}, {_clock(status.eta_s)} left), "
        f"{status.gradient_steps:,} updates, return {_figure(status.train_return_mean)} "
        f"(evaluation {_figure(status.eval_return_mean)}, "
        f"best {_figure(status.best_eval_return_mean)}), "
        f"{_figure(status.samples_per_insert, 2)} samples per insert, "
        f"{_count(status.env_steps_per_s)} env steps/s, "
        f"{_count(status.gradient_steps_per_s)} updates/s, "
        f"workers {status.workers_alive}/{status.workers_target}, "
        f"shards {status.shards_alive}/{status.shards_target}"
        f"{''.join(f', {line}' for line in _troubles(status))}"
    )


def picture(
    status: RunStatus, total_env_steps: int, configured: float | None = None
) -> RenderableType:
    """A status as a bar and seven rows; one more where something was lost or replaced.

    configured: samples per insert, None to leave it out.
    """
    ratio = _figure(status.samples_per_insert, 2)
    rows: dict[str, list[tuple[Any, ...]]] = {  # name, value, whether it is bad
        "steps": [
            ("env", f"{status.env_steps:,} of {total_env_steps:,}"),
            ("updates", f"{status.gradient_steps:,}"),
            ("", "compiled" if status.compiled else "eager"),
        ],
        "return": [
            ("training", _figure(status.train_return_mean)),
            ("evaluation", _figure(status.eval_return_mean)),
            ("best", _figure(status.best_eval_return_mean)),
        ],
        "speed": [
            ("env steps/s", _count(status.env_steps_per_s)),
            ("updates/s", _count(status.gradient_steps_per_s)),
            ("epsilon", _figure(status.epsilon, 3)),
        ],
        "replay": [
            ("samples/insert", ratio if configured is None else f"{ratio} of {configured:g}"),
            ("items", f"{status.replay_size:,}"),
            ("in a shard", _range(status.shard_items)),
        ],
        "values": [
            ("q at start", _figure(status.q_start_mean)),
            ("realised", _figure(status.return_start_mean)),
            ("max |q|", _of_bound(status), status.soft_divergence == 1.0),
        ],
        "waiting": [
            ("learner", _percent(status.learner_wait_fraction)),
            ("workers", _percent(status.worker_wait_fraction)),
            ("staleness", f"{_count(status.staleness_p50)}, p95 {_count(status.staleness_p95)}"),
        ],
    }
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim", no_wrap=True)
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for name, facts in rows.items():
        grid.add_row(name, *(_fact(*fact) for fact in facts))
    alive = [("workers", status.workers_alive, status.workers_target)]
    alive += [("shards", status.shards_alive, status.shards_target)]
    grid.add_row("alive", *(_fact(n, f"{a} of {b}", a < b) for n, a, b in alive))
    lines: list[RenderableType] = [_bar(status, total_env_steps), grid]
    if troubles := _troubles(status):
        lines.append(Text(f"trouble   {', '.join(troubles)}", style=_TROUBLE))
    return Group(*lines)


def print_summary(
    summary: Mapping[str, Any], folder: str | Path, console: Console | None = None
) -> None:
    """The key figures of a finished run and where to look, on stderr.

    summary: the fields of `summary.json`; what is missing or null is shown as a dash.
    """
    console = console or Console(stderr=True)
    folder = Path(folder)
    figures = {
        "stopped by": f"{summary.get('stopped_by')} after {_figure(summary.get('wall_s'))} s "
        f"({_figure(summary.get('startup_s'))} s to start)",
        **(_evaluation(summary) if summary.get("eval_episodes") else {}),
        "work": f"{_count(summary.get('env_steps'))} env steps, "
        f"{_count(summary.get('gradient_steps'))} updates, "
        f"{_figure(summary.get('samples_per_insert'), 2)} samples per insert",
        "speed": f"{_count(summary.get('env_steps_per_s'))} env steps/s, "
        f"{_count(summary.get('gradient_steps_per_s'))} updates/s; the learner waited "
        f"{_percent(summary.get('learner_wait_fraction'))}",
        "limit": f"{summary.get('bottleneck')}: {summary.get('verdict') or '-'}",
    }
    if str(summary.get("stopped_by")).startswith("SIG") and _can_go_on(folder):
        figures["go on"] = f"distdqn resume {folder}"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in (figures | _places(folder)).items():
        grid.add_row(name, Text(text))
    console.print()
    console.print(Text(folder.name, style="bold"))
    console.print(grid)


def _evaluation(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the final episodes say; a run that was broken off has none."""
    return {
        "best checkpoint": f"{_figure(summary.get('best_eval_return_mean'))}, mean return of "
        f"{_count(summary.get('eval_episodes'))} fresh greedy episodes",
        "last checkpoint": f"{_figure(summary.get('eval_return_mean'))}, standard deviation "
        f"{_figure(summary.get('eval_return_std'))}",
        "values": f"{_figure(summary.get('q_start_mean'))} predicted at the start, discounted "
        f"return then realised {_figure(summary.get('return_start_mean'))}; "
        f"largest |q| {_figure(summary.get('q_abs_max'))}, "
        f"bound {_figure(summary.get('q_bound'))}"
        f"{': soft divergence' if summary.get('soft_divergence') else ''}",
    }


def _can_go_on(folder: Path) -> bool:
    """Whether some checkpoint holds all that a run needs, not its weights alone."""
    return any((folder / "checkpoints").glob("step_*/run_state.msgpack"))


def _places(folder: Path) -> dict[str, str]:
    """What the run has left, where it is there."""
    places = {"run folder": str(folder)}
    if (plot := folder / "learning_curve.png").exists():
        places["plot"] = str(plot)
    for video in sorted((folder / "videos").glob("*.mp4"))[:1]:
        places["video"] = str(video)
    places["curves"] = f"tensorboard --logdir {folder}"
    places["play"] = f"distdqn evaluate {folder} --video"
    return places


def _bar(status: RunStatus, total_env_steps: int) -> RenderableType:
    done = min(status.env_steps, total_env_steps)
    line = Table.grid(padding=(0, 2))
    line.add_row(
        Text(f"{status.state:8}", style="bold"),
        ProgressBar(total=total_env_steps, completed=done, width=36),
        Text(_percent(done / total_env_steps), style="bold"),
        Text(f"{_clock(status.elapsed_s)}, {_clock(status.eta_s)} left", style="dim"),
    )
    return line


def _fact(name: str, value: str, is_bad: bool = False) -> Text:
    text = Text(f"{name} " if name else "", style="dim")
    return text.append(value, style=_TROUBLE if is_bad else "not dim")


def _range(numbers: tuple[int, ...]) -> str:
    return f"{min(numbers):,} to {max(numbers):,}" if numbers else "-"


def _troubles(status: RunStatus) -> list[str]:
    counts = {
        "worker restarts": status.worker_restarts,
        "shard restarts": status.shard_restarts,
        "learner restarts": status.learner_restarts,
        "transitions refused": status.transitions.refused,
        "transitions lost": status.transitions.lost,
        "items lost": status.items_lost,
    }
    return [f"{name} {number:,}" for name, number in counts.items() if number]


def _of_bound(status: RunStatus) -> str:
    """The largest value beside what any policy can reach, where that is known."""
    bound = status.q_bound
    largest = "infinite" if math.isinf(status.q_abs_max) else _figure(status.q_abs_max)
    return f"{largest} of {_figure(bound)}" if _is_number(bound) else largest


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _figure(value: float | None, digits: int = 1) -> str:
    return f"{value:,.{digits}f}" if _is_number(value) else "-"


def _count(value: float | None) -> str:
    return _figure(value, 0)


def _percent(value: float | None) -> str:
    return f"{value:.0%}" if _is_number(value) else "-"


def _clock(seconds: float) -> str:
    """`m:ss`, with hours where there are any."""
    if not math.isfinite(seconds):
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minutes}:{second:02}"
