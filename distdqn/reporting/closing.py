"""What a run leaves: its key figures, and the commands that go on from there."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from distdqn.machine.commands import typed
from distdqn.reporting.summary import refused_line
from distdqn.reporting.text_table import print_facts
from distdqn.reporting.words import clock, in_words
from distdqn.telemetry.status import AT_END

_EVALUATION = ("best", "last", "values")  # none if a run was broken off
_CHOSEN = (
    "{chosen_eval_return_mean}, mean return of the evaluation after {best_eval_env_steps} env steps"
)
_ENDED = {
    "stopped by": "{stopped_by}",
    "time": "{whole}, of which {start} to start, {training} training, {rest} final evaluation",
    "best": "{best_eval_return_mean}, mean return of {eval_episodes} fresh greedy episodes with "
    "the weights after {best_eval_env_steps} env steps",
    "last": "{eval_return_mean}, standard deviation {eval_return_std}",
    "values": "{q_start_mean} predicted at the start, discounted return then realised "
    "{return_start_mean}; largest |q| {q_abs_max}, bound {q_bound}{diverged}",
    "work": "{env_steps} env steps, {gradient_steps} updates{eagerly}, {samples_per_insert} "
    "samples per insert{within}",
    "speed": "{env_steps_per_s} env steps/s, {gradient_steps_per_s} updates/s, mean of the "
    "training; the learner waited {learner_wait_fraction}",
    "limit": "{while_learning}{verdict}",
}


def print_summary(
    summary: Mapping[str, Any],
    folder: str | Path,
    console: Console | None = None,
    resumable: bool = False,
    found_by: str = "",
) -> None:
    """The key figures of a finished run and where to look, on stderr.

    summary: the fields of `summary.json`; what is missing or null is shown as a dash.
    resumable: whether there is a checkpoint to go on from.
    found_by: what commands begin with to find the user's modules.
    """
    console, folder, told = console or Console(stderr=True), Path(folder), in_words(summary)
    told |= _times(summary)
    told["diverged"] = ": soft divergence" if summary.get("soft_divergence") else ""
    measured = (summary.get("verdict_detail") or {}).get("limit")
    told["eagerly"] = "" if summary.get("compiled", True) else " (eager)"
    told["while_learning"] = "while learning, " if measured else ""
    told["within"] = _within(summary)
    facts = {name: text.format_map(told) for name, text in _templates(summary).items()}
    is_stopped = str(summary.get("stopped_by")).startswith("SIG")
    console.print("", Text(folder.name, style="bold"), sep="\n")
    if restarts := _restarts(summary, folder):
        facts["restarts"] = restarts
    if refused := refused_line(summary):
        facts["refused"] = refused
    if number := (summary.get("transitions_refused_by") or {}).get(AT_END):
        facts["unlearned"] = f"{number:,} transitions were still on their way: {AT_END}"
    is_trained = summary.get("gradient_steps") != 0
    calls = _calls(folder, summary.get("made_with") or (), found_by)
    leads = _leads(folder, calls, is_trained, resumable and is_stopped)
    print_facts(facts | leads, console, whole=leads)


def _templates(summary: Mapping[str, Any]) -> dict[str, str]:
    """What is told, by its label."""
    if summary.get("eval_episodes"):
        return _ENDED
    has_best = summary.get("chosen_eval_return_mean") is not None
    left_out = [name for name in _EVALUATION if not (has_best and name == "best")]
    return {
        name: text for name, text in (_ENDED | {"best": _CHOSEN}).items() if name not in left_out
    }


def _within(summary: Mapping[str, Any]) -> str:
    """Beside the achieved samples per insert, what they are held at."""
    ratio, band = summary.get("samples_per_insert_set"), summary.get("error_band")
    if ratio is None:
        return ""
    return f" ({ratio:g}" + ("" if band is None else f", within {band:,.0f} samples") + ")"


def _restarts(summary: Mapping[str, Any], folder: Path) -> str:
    """What was replaced while the run went on; "" for nothing."""
    kinds = {"worker": "workers", "shard": "shards", "learner": "learner"}
    numbers = {name: summary.get(f"{kind}_restarts") or 0 for kind, name in kinds.items()}
    told = ", ".join(f"{name} {number:,}" for name, number in numbers.items() if number)
    log = folder / "errors.log"
    return f"{told}; see {log}" if told and log.exists() else told


def _times(summary: Mapping[str, Any]) -> dict[str, str]:
    """The run's duration and its three parts; a dash for one that is not known."""
    whole, start, training = (
        math.nan if summary.get(name) is None else float(summary[name])
        for name in ("wall_s", "startup_s", "train_s")
    )
    seconds = {"whole": whole, "start": start, "training": training}
    seconds["rest"] = whole - start - training
    return {name: clock(value) for name, value in seconds.items()}


def _leads(
    folder: Path, calls: Mapping[str, str], is_trained: bool, goes_on: bool
) -> dict[str, str]:
    """Where to look, and what to type where the user stands; only what works."""
    plot, videos = folder / "learning_curve.png", sorted(folder.glob("videos/*.mp4"))
    told = {"run folder": str(folder)}
    if plot.exists():
        told["plot"] = str(plot)
    if videos:
        told["video"] = str(videos[0])
    tensorboard = typed("tensorboard", "tensorboard.main")
    told["curves"] = f"{tensorboard} --logdir {shlex.quote(str(folder))}"
    has_weights = any(folder.glob("best/manifest.json")) or any(folder.glob("*/*/manifest.json"))
    if is_trained and has_weights:
        filmed = " --video" if videos and not calls["evaluate"].endswith(")") else ""
        told["play"] = calls["evaluate"] + filmed
    if goes_on:
        told["go on"] = calls["resume"]
    return told


def _calls(folder: Path, makers: Sequence[str], found_by: str) -> dict[str, str]:
    """Commands by verb; in Python where the run needs functions of the user's own."""
    run = folder.name if folder == Path("runs") / folder.name else str(folder)
    if makers:
        given = ", ".join(f"{name}=..." for name in makers)
        return {
            verb: f"in Python, distdqn.{verb}({run!r}, {given})" for verb in ("evaluate", "resume")
        }
    command = f"{found_by}{typed('distdqn', 'distdqn')}"
    return {verb: f"{command} {verb} {shlex.quote(run)}" for verb in ("evaluate", "resume")}
