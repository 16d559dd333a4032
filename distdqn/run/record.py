"""What a run writes down, whoever moves it.

Takes the polls and evaluations of a run in progress, keeps the curves and the best
weights, and ends with the summary and the plot. It starts and steps nothing.
"""

import dataclasses
import math
import time
from typing import Any

import numpy as np

from distdqn.config import Config, to_plain, to_yaml
from distdqn.config.tree import resolved_error_band
from distdqn.errors import DistDQNError, one_line, traceback_of
from distdqn.files.run_folder import RunFolder
from distdqn.machine.memory import tree_pss_bytes
from distdqn.reporting.plots import plot_learning_curve, thinned
from distdqn.reporting.progress import Progress
from distdqn.reporting.summary import (
    OUTCOMES,
    Summary,
    evaluation_fields,
    outcomes,
    transition_fields,
    weights_sha256,
)
from distdqn.reporting.verdict import Setup, judge
from distdqn.run.checkpointer import Checkpointer
from distdqn.run.factory import Factory
from distdqn.run.interruption import Interruption
from distdqn.telemetry.reports import EvaluationReport, Poll
from distdqn.telemetry.status import EvaluationFigures, Figures, RunStatus, scalars, shared
from distdqn.telemetry.usage import UsageWindow

_VISITS = 0.6  # of the time that a signal leaves
_WRITE_PERIOD_S = 1.0
_HISTOGRAM_PERIOD_S = 10.0  # 2 kB each time
_MEMORY_PERIOD_S = 5.0
_MOST_EPISODES = 20_000  # of training, kept for the plot


def setup_of(config: Config, status: RunStatus | None = None) -> Setup:
    """What a verdict must know of a run besides what it spent."""
    kinds = ("worker", "shard", "learner")
    return Setup(
        workers=1 if config.mode == "lockstep" else config.workers.count,
        shards=config.replay.shards if config.mode == "async" else 1,
        batch_size=config.learner.batch_size,
        samples_per_insert=config.replay.samples_per_insert,
        in_turns=config.mode != "async",
        restarts=0 if status is None else sum(getattr(status, f"{k}_restarts") for k in kinds),
    )


class RunRecord:
    """The account of one run from its first poll to its summary.

    best: the evaluation whose weights are kept as `best/`, or None so far.
    """

    def __init__(self, factory: Factory, folder: RunFolder, progress: Progress):
        config = factory.config
        self._config, self._folder, self._progress = config, folder, progress
        self._made_with = factory.made_with
        self.checkpointer = Checkpointer(
            folder.path, config.checkpoint.keep, factory.network_description(), config.env.id
        )
        self.best: EvaluationReport | None = None
        self._startup_s = math.nan
        self._window = UsageWindow(config.total_env_steps)
        self._began = time.monotonic()
        self._train_curve: list[tuple[float, float]] = []
        self._eval_curve: list[tuple[int, np.ndarray]] = []
        self._peak_pss_bytes = 0
        self._next_write = self._next_histograms = self._next_memory = 0.0
        self._first_steps: tuple[float, int, int] | None = None
        self._poll: Poll | None = None

    @property
    def env_steps(self) -> int:
        return 0 if self._poll is None else self._poll.status.env_steps

    @property
    def state(self) -> str:
        """Of the run, as last heard."""
        return "" if self._poll is None else self._poll.status.state

    def log_error(self, part: str, details: str) -> None:
        """Writes a traceback down; the first time it says where."""
        if path := self._folder.log_error(part, details):
            self._progress.say(f"{path} has more of it")

    def started(self) -> None:
        """Every part is up."""
        self._startup_s = time.monotonic() - self._began
        values, text = to_plain(self._config), to_yaml(self._config)
        self._folder.metrics.write_configuration(values, text, OUTCOMES)

    def hear(self, poll: Poll) -> None:
        """Writes down what is new; scalars once a second."""
        now = time.monotonic()
        status = dataclasses.replace(poll.status, elapsed_s=now - self._began)
        self._poll = poll = dataclasses.replace(poll, status=status)
        if poll.status.state != "stopping":  # what is flushed then is no steady work
            self._window.hear(poll.usage)
        for line in poll.notes:
            self._progress.say(line)
        self._note_training(poll.episodes)
        self._folder.metrics.write_episodes(poll.episodes, status.gradient_steps)
        for report in poll.evaluations:
            self._hear_evaluation(report)
        if self._first_steps is None and status.env_steps:
            self._first_steps = (now, status.env_steps, status.gradient_steps)
            self._folder.tell(trained=True)
        if now >= self._next_memory:
            self._next_memory = now + _MEMORY_PERIOD_S
            self._peak_pss_bytes = max(self._peak_pss_bytes, tree_pss_bytes())
        if now >= self._next_write:
            self._next_write = now + _WRITE_PERIOD_S
            self._write(status)
        if now >= self._next_histograms:
            self._next_histograms = now + _HISTOGRAM_PERIOD_S
            self._write_histograms(poll)
        self._progress.update(status)

    def finish(
        self, stopped_by: str, online: np.ndarray | None, system: Any, interruption: Interruption
    ) -> Summary:
        """Final evaluations, unless interrupted, and the summary, after the last checkpoint.

        online: `[P]` last weights, None where nothing was learned.  system: of either mode.
        interruption: breaks the evaluations off, and then is what stopped the run.
        """
        trained_at, last, best = time.monotonic(), None, None
        with interruption.left_out_after(_VISITS):
            self._write_visits(system)
        if online is not None and not interruption.name:
            try:
                with interruption.until(0):
                    last, best = self._final_evaluations(system, online)
            except (DistDQNError, KeyboardInterrupt) as error:  # the training itself is saved
                why = interruption.name or str(error)
                self._progress.say(f"no final evaluation: {why}")
                if isinstance(error, DistDQNError) and error.details:
                    self.log_error("evaluator", error.details)
        if self._poll is None:
            interruption.give_up()
        else:
            self._write_last(self._poll, last)
        told = self._rates(trained_at) | evaluation_fields(last, best)
        told["train_s"] = trained_at - self._began - self._startup_s
        told["weights_sha256"] = weights_sha256(np.zeros(0) if online is None else online)
        summary = self._summary(told | {"stopped_by": interruption.name or stopped_by})
        self._folder.metrics.write_outcome(outcomes(summary), self.env_steps)
        self._folder.write_summary(summary.to_json())
        self._folder.tell(state="stopped" if interruption.name else "finished")
        return summary

    def _write_visits(self, system: Any) -> None:
        visits = system.visits()
        if visits and all(counts is not None for counts in visits):
            self._folder.write_visits(np.sum(visits, axis=0))

    def _note_training(self, episodes: list[tuple[int, float, int]]) -> None:
        """Keeps the returns for the plot, fewer of each stretch as they become many."""
        self._train_curve += [(steps, value) for steps, value, _ in episodes]
        if len(self._train_curve) > _MOST_EPISODES:
            self._train_curve = list(map(tuple, thinned(self._train_array()).tolist()))

    def plot(self) -> None:
        """`learning_curve.png`, where anything has been heard; a failure costs it alone."""
        if self._poll is not None:
            try:
                self._draw()
            except Exception as error:
                self._progress.say(f"learning_curve.png could not be drawn: {one_line(error)}")
                self.log_error("plot", traceback_of(error))

    def _draw(self) -> None:
        preset = self._folder.read_run_json().get("preset")
        told = [self._folder.name, self._config.env.id, preset and f"preset {preset}"]
        plot_learning_curve(
            self._folder.path / "learning_curve.png",
            self._train_array(),
            [(s, float(np.mean(r)), np.min(r), np.max(r)) for s, r in self._eval_curve],
            title=" \N{MIDDLE DOT} ".join(filter(None, [*told, f"seed {self._config.seed}"])),
            goal=self._config.eval.stop_at_return,
        )

    def _train_array(self) -> np.ndarray:
        return np.array(self._train_curve, np.float64).reshape(-1, 2)

    def get_state(self) -> dict[str, Any]:
        """What a resumed run needs: the curves, and what the best evaluation returned."""
        names = ("env_steps", "returns", "online")
        best = self.best and {name: getattr(self.best, name) for name in names}
        return {
            "train_curve": self._train_array(),
            "eval_steps": np.array([steps for steps, _ in self._eval_curve], np.int64),
            "eval_returns": np.array([returns for _, returns in self._eval_curve], np.float64),
            "best": best,
        }

    def set_state(self, state: dict[str, Any], layout: Any) -> None:
        """Goes on from `get_state()`; layout: of the network's parameters."""
        self._train_curve = list(map(tuple, state["train_curve"].tolist()))
        steps = state["eval_steps"].tolist()
        self._eval_curve = list(zip(steps, state["eval_returns"], strict=True))
        if state["best"] is not None:
            self.best = EvaluationReport(**state["best"], layout=layout)

    def _write(self, figures: RunStatus | EvaluationFigures, evaluated: int | None = None) -> None:
        """evaluated: env steps of the weights that the figures are of."""
        assert self._poll is not None
        now = self._poll.status
        self._folder.metrics.write(
            scalars(figures), now.env_steps, now.gradient_steps, evaluated=evaluated
        )

    def _write_histograms(self, poll: Poll) -> None:
        for tag, drawn in poll.histograms.items():
            self._folder.metrics.write_histogram(tag, *drawn, poll.status.env_steps)

    def _write_last(self, poll: Poll, last: EvaluationReport | None) -> None:
        """The final scalars, with what the last weights promise and what they realised."""
        status = poll.status
        if last is not None:
            status = dataclasses.replace(
                status, q_start_mean=last.q_start_mean, return_start_mean=last.return_start_mean
            )
        self._write(status)
        self._write_histograms(poll)

    def _hear_evaluation(self, report: EvaluationReport) -> None:
        mean = self._note_evaluation(report)
        better = self.best is None or mean > float(np.mean(self.best.returns))
        if report.online.size and better:
            self._save_best(report)

    def _note_evaluation(self, report: EvaluationReport) -> float:
        if report.num_cut:
            self._progress.say(
                f"{report.num_cut} of {len(report.returns)} evaluation episodes were cut after "
                f"{self._config.eval.max_episode_steps} steps; their returns so far count"
            )
        self._eval_curve.append((report.env_steps, report.returns))
        self._write(report.figures(), report.env_steps)
        return float(np.mean(report.returns))

    def _final_evaluations(
        self, system: Any, online: np.ndarray
    ) -> tuple[EvaluationReport, EvaluationReport]:
        """Fresh greedy episodes with the last and the best weights, and a video.

        Last weights that return more become the best; no figure is of episodes that chose.
        """
        episodes, seed = self._config.eval.final_episodes, self._config.seed + 777_000_001
        with self._progress.stage(f"evaluating the last weights, {episodes} episodes"):
            last = best = system.evaluate(online, episodes, seed)
        last = best = dataclasses.replace(last, env_steps=self.env_steps)
        mean = self._note_evaluation(last)
        if self.best is not None:  # else the run was shorter than an evaluation period
            with self._progress.stage(f"evaluating the best weights, {episodes} episodes"):
                best = system.evaluate(self.best.online, episodes, seed + 1)
        if self.best is None:
            self._save_best(last)
        elif mean > float(np.mean(best.returns)):
            self._save_best(last)
            with self._progress.stage(f"the last are best: evaluating them, {episodes} episodes"):
                best = system.evaluate(online, episodes, seed + 2)
        assert self.best is not None
        self._record(system, self.best.online)
        return last, best

    def _save_best(self, report: EvaluationReport) -> None:
        self.best = report
        self.checkpointer.save_best(report.online, report.layout, report.env_steps)

    def _record(self, system: Any, online: np.ndarray) -> None:
        try:
            for index in range(self._config.eval.video_episodes):
                with self._progress.stage(f"recording video {index + 1}"):
                    video = system.record(online, seed=index)
                self._folder.write_video(f"best_{index}.mp4", video)
        except DistDQNError as error:
            self._progress.say(f"no video: {error}")
            if error.details:
                self.log_error("evaluator", error.details)

    def _summary(self, told: dict[str, Any]) -> Summary:
        assert self._poll is not None
        status, best = self._poll.status, self.best
        verdict = judge(self._window.spent, setup_of(self._config, status))
        is_async, replay = self._config.mode == "async", self._config.replay
        own = {
            "samples_per_insert_set": replay.samples_per_insert,
            "error_band": resolved_error_band(self._config) if is_async else math.nan,
            "run_name": self._folder.name,
            "run_folder": str(self._folder.path),
            "env_id": self._config.env.id,
            "made_with": self._made_with,
            "seed": self._config.seed,
            "wall_s": time.monotonic() - self._began,
            "startup_s": self._startup_s,
            "best_eval_env_steps": self.env_steps if best is None else best.env_steps,
            "chosen_eval_return_mean": math.nan if best is None else float(np.mean(best.returns)),
            "peak_pss_bytes": self._peak_pss_bytes,
            "bottleneck": verdict.bottleneck,
            "verdict": verdict.line(),
            "verdict_detail": verdict.to_json(),
        }
        heard = shared(status, Figures) | transition_fields(status.transitions)
        return Summary(**(heard | own | told))

    def _rates(self, until: float) -> dict[str, float]:
        """Of the run since the first report of any steps."""
        assert self._poll is not None
        since, *first = self._first_steps or (self._began, 0, 0)
        names, seconds = ("env_steps", "gradient_steps"), max(until - since, 1e-9)
        return {
            f"{name}_per_s": (getattr(self._poll.status, name) - before) / seconds
            for name, before in zip(names, first, strict=True)
        }
