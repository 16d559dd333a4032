"""What a run leaves: its key figures, and the commands that go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distdqn.reporting.words import in_words

_EVALUATION = ("best checkpoint", "last checkpoint", "values")  # none if a run was broken off
_ENDED = {
    "stopped by": "{stopped_by} after {wall_s} s ({startup_s} s to start)",
    "best checkpoint": "{best_eval_return_mean}, mean return of {eval_episodes} fresh greedy "
    "episodes",
    "last checkpoint": "{eval_return_mean}, standard deviation {eval_return_std}",
    "values": "{q_start_mean} predicted at the start, discounted return then realised "
    "{return_start_mean}; largest |q| {q_abs_max}, bound {q_bound}{diverged}",
    "work": "{env_steps} env steps, {gradient_steps} updates, {samples_per_insert} samples per "
    "insert",
    "speed": "{env_steps_per_s} env steps/s, {gradient_steps_per_s} updates/s; the learner waited "
    "{learner_wait_fraction}",
    "limit": "{verdict}",
}


def print_summary(
    summary: Mapping[str, Any],
    folder: str | Path,
    console: Console | None = None,
    resumable: bool = False,
) -> None:
    """The key figures of a finished run and where to look, on stderr.

    summary: the fields of `summary.json`; what is missing or null is shown as a dash.
    resumable: whether there is a checkpoint to go on from.
    """
    console, folder, told = console or Console(stderr=True), Path(folder), in_words(summary)
    told["diverged"] = ": soft divergence" if summary.get("soft_divergence") else ""
    left_out = () if summary.get("eval_episodes") else _EVALUATION
    rows = {name: x.format_map(told) for name, x in _ENDED.items() if name not in left_out}
    if str(summary.get("stopped_by")).startswith("SIG") and resumable:
        rows["go on"] = f"distdqn resume {folder}"
    rows["run folder"] = str(folder)
    for name, pattern in (("plot", "learning_curve.png"), ("video", "videos/*.mp4")):
        for path in sorted(folder.glob(pattern))[:1]:
            rows[name] = str(path)
    rows["curves"] = f"tensorboard --logdir {folder}"
    rows["play"] = f"distdqn evaluate {folder} --video"
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows.items():
        grid.add_row(name, Text(text))
    console.print("", Text(folder.name, style="bold"), grid, sep="\n")
