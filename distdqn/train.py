"""One run, from configuration to summary.

The driver steps no environment and updates nothing: it starts the system, polls it,
writes down what it hears, keeps the best and the newest checkpoint, and ends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distdqn.actors.messages import EvaluationReport, Poll
from distdqn.actors.ray_session import check_gpu, connect
from distdqn.checkpointing import Checkpointer, initial_parameters
from distdqn.config import Config, to_yaml
from distdqn.envs import EnvSettings, describe
from distdqn.errors import DistDQNError, EnvFailure
from distdqn.memory import check_replay_fits, tree_pss_bytes
from distdqn.metrics import RunStatus, scalars
from distdqn.parts import Parts
from distdqn.placement import embedded_cpus
from distdqn.plots import plot_learning_curve
from distdqn.progress import Progress, print_summary
from distdqn.run_folder import RunFolder
from distdqn.summary import (
    Summary,
    bottleneck,
    evaluation_fields,
    from_status,
    weights_sha256,
)
from distdqn.system import System

_POLL_S = 0.2
_WRITE_PERIOD_S = 1.0
_MEMORY_PERIOD_S = 5.0
_STOP_TIMEOUT_S = 60.0


def train(
    config: Config,
    make_env: Callable[[], Any] | None = None,
    make_network: Callable[[Any, int], Any] | None = None,
    *,
    display: bool = True,
) -> Summary:
    """Trains as `config` says and returns the run's figures.

    make_env: makes one `gymnasium.Env`; distdqn vectorises and seeds. None: `env.id`.
    make_network: (observation space, number of actions) -> module giving `[B, A]`.
    display: progress on stderr.
    A Ray session that the caller has opened is used and left open. Ctrl-C and SIGTERM
    end the run with a checkpoint (`stopped_by`); a second Ctrl-C ends at once.
    Raises DistDQNError, one line, after saving what had been learned.
    """
    parts = _make_parts(config, make_env, make_network)
    initial = initial_parameters(config)
    folder = RunFolder.create(config.runs_dir, config.run_name, config.env.id, to_yaml(config))
    with contextlib.closing(folder), _progress(config, display) as progress:
        run = _Run(config, parts, folder, progress)
        with _signals(run.interrupt):
            summary = run.execute(initial)
    if display:
        print_summary(summary.to_json(), folder.path)
    return summary


def _progress(config: Config, display: bool) -> Progress:
    return Progress(
        config.total_env_steps,
        config.replay.samples_per_insert,
        enabled=display,
        max_lines_per_s=config.max_log_lines_per_s,
    )


def _make_parts(config: Config, make_env: Any, make_network: Any) -> Parts:
    """Describes the environment; every refusal that needs no Ray comes from here."""
    env = config.env
    settings = EnvSettings(env.id, env.kwargs, env.reward_scale, env.reward_clip)
    description = describe(settings, make_env)
    parts = Parts(
        config,
        description.observation,
        description.num_actions,
        description.action_start,
        description.observation_space,
        make_env,
        make_network,
    )
    if config.address is None and "RAY_ADDRESS" not in os.environ:  # all shards are here
        check_replay_fits(parts.replay_bytes(), config.replay.capacity)
    return parts


class _Run:
    """A run in progress: what the driver has heard so far."""

    def __init__(self, config: Config, parts: Parts, folder: RunFolder, progress: Progress):
        self._config, self._parts = config, parts
        self._folder, self._progress = folder, progress
        self._system: System | None = None
        self._checkpointer = Checkpointer(config, parts, folder.path)
        self._began = time.monotonic()
        self._startup_s = math.nan
        self._interrupted = ""
        self._train_curve: list[tuple[int, float]] = []
        self._eval_curve: list[tuple[int, np.ndarray]] = []
        self._best: EvaluationReport | None = None
        self._peak_pss_bytes = 0
        self._next = {"write": 0.0, "memory": 0.0, "checkpoint": math.inf}
        self._first_steps: tuple[float, int, int] | None = None
        self._poll: Poll | None = None

    def interrupt(self, name: str) -> None:
        """A signal came; the loop ends the run cleanly at its next turn."""
        self._interrupted = name

    def _give_up_if_interrupted(self) -> None:
        """Before there is anything to save."""
        if self._interrupted == "SIGINT":
            raise KeyboardInterrupt
        if self._interrupted:
            raise SystemExit(143)

    def execute(self, initial: dict[str, np.ndarray] | None) -> Summary:
        config, session = self._config, None
        try:
            session = connect(
                config.address,
                self._folder.name,
                embedded_cpus(self._parts),
                self._embedded_gpus(),
                self._folder.token_path,
            )
            for line in session.warnings:
                self._progress.say(line)
            self._folder.set_running(session.address, session.namespace, session.token_file)
            check_gpu(config.learner.device, config.learner.num_gpus)
            self._system = System(
                self._parts, self._folder.name, self._progress.say, self._give_up_if_interrupted
            )
            return self._train(initial)
        except BaseException:
            self._folder.set_state("failed")
            raise
        finally:
            plotting = threading.Thread(target=self._plot)  # while Ray's processes end
            plotting.start()
            if self._system is not None:
                self._system.close()
            if session is not None:
                session.close()
            plotting.join()

    def _embedded_gpus(self) -> float:
        """GPUs that an embedded Ray must offer: whole ones, as Ray counts them."""
        return math.ceil(self._config.learner.num_gpus)

    def _train(self, initial: dict[str, np.ndarray] | None) -> Summary:
        system = self._system
        assert system is not None
        system.start(initial)
        self._startup_s = time.monotonic() - self._began
        self._next["checkpoint"] = time.monotonic() + self._config.checkpoint.period_s
        try:
            stopped_by = self._loop(system)
        except DistDQNError as error:
            self._save_what_is_there(system, error)
            raise
        return self._finish(system, stopped_by)

    def _loop(self, system: System) -> str:
        """Polls until the run is over; returns what ended it."""
        while not system.finished:
            self._hear(system.poll(_POLL_S))
            now = time.monotonic()
            if now >= self._next["checkpoint"]:
                self._next["checkpoint"] = now + self._config.checkpoint.period_s
                self._save_periodically(system)
            if self._interrupted or self._state == "stopping":
                reason = self._interrupted or "stop_at_return"
                self._progress.say(f"stopping ({reason}); saving the weights")
                self._wind_down(system)
                return reason
        return "total_env_steps"

    def _save_periodically(self, system: System) -> None:
        state = system.learner_state()  # some seconds old, so is its clock
        self._checkpointer.save(state, 0 if state is None else state["inserts"])

    def _wind_down(self, system: System) -> None:
        """Stops every part and hears their last reports."""
        system.stop()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while not system.idle and time.monotonic() < deadline:
            self._hear(system.poll(_POLL_S))

    def _hear(self, poll: Poll) -> None:
        self._poll = poll
        now, status = time.monotonic(), poll.status
        for line in poll.notes:
            self._progress.say(line)
        self._train_curve += [(steps, value) for steps, value, _ in poll.episodes]
        self._folder.write_episodes(poll.episodes)
        for report in poll.evaluations:
            self._hear_evaluation(report)
        if self._first_steps is None and status.env_steps:
            self._first_steps = (now, status.env_steps, status.gradient_steps)
        if now >= self._next["memory"]:
            self._next["memory"] = now + _MEMORY_PERIOD_S
            self._peak_pss_bytes = max(self._peak_pss_bytes, tree_pss_bytes())
        if now >= self._next["write"]:
            self._next["write"] = now + _WRITE_PERIOD_S
            self._folder.write_scalars(scalars(status), status.env_steps)
        self._progress.update(status)

    def _hear_evaluation(self, report: EvaluationReport) -> None:
        mean = self._note_evaluation(report)
        better = self._best is None or mean > float(np.mean(self._best.returns))
        if report.online.size and better:
            self._save_best(report)

    def _note_evaluation(self, report: EvaluationReport) -> float:
        if report.num_cut:
            self._progress.say(
                f"{report.num_cut} of {len(report.returns)} evaluation episodes were cut after "
                f"{self._config.eval.max_episode_steps} steps; their returns so far count"
            )
        mean = float(np.mean(report.returns))
        self._eval_curve.append((report.env_steps, report.returns))
        self._folder.write_scalars({"eval/episodic_return": mean}, report.env_steps)
        return mean

    def _finish(self, system: System, stopped_by: str) -> Summary:
        state = system.learner_state()
        self._hear(system.poll(0))
        self._checkpointer.save(state, self._env_steps)
        trained_at = time.monotonic()
        last = best = None
        if state is not None and not self._interrupted:
            try:
                last, best = self._final_evaluations(system, state["learner"]["online"])
            except DistDQNError as error:  # the training itself is saved
                self._progress.say(f"no final evaluation: {error}")
        status = self._poll.status if self._poll is not None else RunStatus()
        self._folder.write_scalars(scalars(status), status.env_steps)
        summary = self._summarise(stopped_by, state, last, best, trained_at)
        self._folder.write_summary(summary.to_json())
        self._folder.set_state("finished" if not self._interrupted else "stopped")
        return summary

    def _final_evaluations(
        self, system: System, online: np.ndarray
    ) -> tuple[EvaluationReport, EvaluationReport]:
        """Fresh greedy episodes with the last and the best weights, and a video."""
        episodes, seed = self._config.eval.final_episodes, self._config.seed + 777_000_001
        self._progress.say(f"evaluating the last and the best weights, {episodes} episodes each")
        last = best = system.evaluate(online, episodes, seed)
        self._note_evaluation(dataclasses.replace(last, env_steps=self._env_steps))
        if self._best is None:  # the run was shorter than an evaluation period
            self._save_best(dataclasses.replace(last, env_steps=self._env_steps))
        else:
            best = system.evaluate(self._best.online, episodes, seed + 1)
        for index in range(self._config.eval.video_episodes):
            self._record(system, best.online, index)
        return last, best

    def _save_best(self, report: EvaluationReport) -> None:
        self._best = report
        self._checkpointer.save_best(report.online, report.layout, report.env_steps)

    def _record(self, system: System, online: np.ndarray, index: int) -> None:
        try:
            self._folder.write_video(f"best_{index}.mp4", system.record(online, seed=index))
        except DistDQNError as error:
            self._progress.say(f"no video: {error}")

    def _summarise(
        self,
        stopped_by: str,
        state: dict[str, Any] | None,
        last: EvaluationReport | None,
        best: EvaluationReport | None,
        trained_at: float,
    ) -> Summary:
        poll = self._poll
        assert poll is not None
        seconds, env_steps, gradient_steps = self._since_first_steps(trained_at)
        online = np.zeros(0) if state is None else state["learner"]["online"]
        return Summary(
            run_name=self._folder.name,
            run_folder=str(self._folder.path),
            env_id=self._config.env.id,
            seed=self._config.seed,
            stopped_by=stopped_by,
            wall_s=time.monotonic() - self._began,
            startup_s=self._startup_s,
            env_steps_per_s=env_steps / seconds,
            gradient_steps_per_s=gradient_steps / seconds,
            best_eval_env_steps=self._env_steps if self._best is None else self._best.env_steps,
            peak_pss_bytes=self._peak_pss_bytes,
            bottleneck=bottleneck(poll),
            weights_sha256=weights_sha256(online),
            **from_status(poll.status),
            **evaluation_fields(last, best),
        )

    def _since_first_steps(self, until: float) -> tuple[float, int, int]:
        """Seconds, env steps and gradient steps since the first report of any."""
        assert self._poll is not None
        status = self._poll.status
        since, env_steps, gradient_steps = self._first_steps or (self._began, 0, 0)
        return (
            max(until - since, 1e-9),
            status.env_steps - env_steps,
            status.gradient_steps - gradient_steps,
        )

    def _plot(self) -> None:
        plot_learning_curve(
            self._folder.path / "learning_curve.png",
            np.array(self._train_curve, np.float64).reshape(-1, 2),
            [
                (s, float(np.mean(r)), float(np.min(r)), float(np.max(r)))
                for s, r in self._eval_curve
            ],
            title=f"{self._config.env.id}, seed {self._config.seed}",
            solved_at=self._config.eval.stop_at_return,
        )

    def _save_what_is_there(self, system: System, error: DistDQNError) -> None:
        """Before an error ends the run: the learner's newest state, if it can be had."""
        if isinstance(error, EnvFailure):
            with contextlib.suppress(DistDQNError):
                self._wind_down(system)
        with contextlib.suppress(DistDQNError):
            path = self._checkpointer.save(system.learner_state(), self._env_steps)
            if path is not None:
                self._progress.say(f"saved {path} before the run ends")

    @property
    def _env_steps(self) -> int:
        return 0 if self._poll is None else self._poll.status.env_steps

    @property
    def _state(self) -> str:
        return "" if self._poll is None else self._poll.status.state


@contextlib.contextmanager
def _signals(interrupt: Callable[[str], None]) -> Iterator[None]:
    """First SIGINT or SIGTERM: a clean end. A second SIGINT: out at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if seen and number == signal.SIGINT:
            os._exit(130)
        seen.append(number)
        interrupt(signal.Signals(number).name)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
