"""The processes of the broadcast benchmark: a run's own, on made-up work.

Env worker, publisher, weight server and network are those of a run; only the env waits in
place of computing, the learner makes its updates on one minibatch, and blocks go nowhere.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distdqn.acting.env_worker import EnvWorker
from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.bench.alone import bare_updates
from distdqn.bench.learner import Options, Point, make_learner
from distdqn.bench.synthetic import TASKS, Task, Torso, make_frames
from distdqn.learning.learner import Learner
from distdqn.learning.publish import Publisher
from distdqn.learning.training import learner_report
from distdqn.networks.q_network import make_network
from distdqn.telemetry.reports import LearnerReport, WorkerReport
from distdqn.types import (
    LearnerDirective,
    ShardMap,
    Step,
    WeightSnapshot,
    WeightsVersion,
    WorkerDirective,
)

_NO_END = 2**62
_BLOCK = 64  # transitions, as the Atari presets have of each env
_REPORT_PERIOD_S = 0.25
_STOP_TIMEOUT_S = 30.0

Act = tuple[int, float]
"""Counter of the weights and `time.monotonic()` when a worker first acted with them."""


class WaitingEnv:
    """Has a `VectorStepper`'s face; a step of its one env waits and changes nothing.

    acted: of the newest snapshot that acted.
    """

    num_envs, action_mask = 1, None

    def __init__(self, task: Task, wait_s: float) -> None:
        self.observation, self.num_actions = task.observation, task.num_actions
        self._wait_s = wait_s
        self._new: int | None = None
        self.acted: Act = (0, 0.0)
        frames = make_frames(task.observation, 1, np.random.default_rng(0))
        no, yes, zero = np.zeros(1, bool), np.ones(1, bool), np.zeros(1)
        self._step = Step(
            obs_t=frames,
            r_t=zero.astype(np.float32),
            raw_reward=zero,
            terminated=no,
            truncated=no,
            ended=no,
            valid=yes,
            next_obs=frames,
            restarted=no,
            starts=no,
            bad=no,
            bad_what="",
            action_mask_t=None,
            next_action_mask=None,
        )

    def reset(self, seed: int) -> np.ndarray:
        del seed
        return self._step.next_obs

    def expect(self, counter: int) -> None:
        """The next action is the first by these weights."""
        self._new = counter

    def step(self, actions: np.ndarray) -> Step:
        del actions
        if self._new is not None:
            self.acted = (self._new, time.monotonic())
            self._new = None
        time.sleep(self._wait_s)
        return self._step


class WatchedRollout:
    """A `Rollout` that tells its env of new weights, and whose blocks nobody gets."""

    def __init__(self, rollout: Rollout, env: WaitingEnv) -> None:
        self._rollout, self._env = rollout, env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rollout, name)

    def set_weights(self, snapshot: WeightSnapshot) -> None:
        self._rollout.set_weights(snapshot)
        self._env.expect(snapshot.version.counter)

    def collect(self, max_transitions: int, until: float) -> None:
        self._rollout.collect(max_transitions, until)

    def flush(self) -> None:
        self._rollout.flush()


class BroadcastWorker:
    """A process for one env worker after the other."""

    CALLS_AT_ONCE = 2

    def __init__(self) -> None:
        self._env: WaitingEnv | None = None

    def run(self, index: int, torso: Torso, wait_s: float, server: Any, control: Any) -> None:
        """Acts until `control` says stop."""
        torch.set_num_threads(1)
        env = self._env = WaitingEnv(TASKS[torso], wait_s)
        EnvWorker(
            build=partial(_watched, env, torso, index),  # type: ignore[arg-type]
            stream=(index, 1),
            control=control,
            weight_server=server,
            max_in_flight=1,
            env_timeout_s=60.0,
            report_period_s=_REPORT_PERIOD_S,
        ).run(ShardMap())

    def acted(self) -> Act:
        """Of the newest weights; may be asked while `run` is busy, or before it has begun."""
        return self._env.acted if self._env else (0, 0.0)


class BroadcastLearner:
    """A training thread in `run`, and calls beside it; its own parameters are published."""

    CALLS_AT_ONCE = 3

    def __init__(self) -> None:
        self._asked, self._stopped = threading.Event(), threading.Event()
        self._published: queue.Queue[Published] = queue.Queue()

    def nbytes(self, torso: Torso) -> int:
        """Of the network's vector."""
        return _learner(torso).online_vector().nbytes

    def run(self, torso: Torso, server: Any, control: Any) -> None:
        """Makes updates, publishes when asked, until `stop`."""
        self._stopped.clear()
        learner = _learner(torso)
        publisher = Publisher(
            server, control, lambda: learner_report(learner), lambda: -1, _REPORT_PERIOD_S
        )
        publisher.start()
        update = bare_updates(learner, 1)
        own, counter = learner.online_vector(), 0
        torch.set_num_threads(1)
        while not self._stopped.is_set():
            update()
            publisher.take_directive()
            if self._asked.is_set():
                self._asked.clear()
                counter += 1
                self._published.put(_publish(learner, publisher, counter, own))
        publisher.stop()

    def publish(self) -> Published:
        """Has the training thread publish after the update at hand."""
        self._asked.set()
        return self._published.get(timeout=_STOP_TIMEOUT_S)

    def stop(self) -> None:
        self._stopped.set()


Published = tuple[int, float, float, float]
"""Counter, `time.monotonic()` at the beginning, seconds of the pause, seconds of a memcpy."""


class BroadcastControl:
    """Answers reports: go on, until `stop`."""

    def __init__(self) -> None:
        self._stop = False

    def report_worker(self, report: WorkerReport, generation: int) -> WorkerDirective:
        del report, generation
        return WorkerDirective(_NO_END, 0, finish=False, stop=self._stop, shards=None)

    def report_learner(self, report: LearnerReport, generation: int) -> LearnerDirective:
        del report, generation
        return LearnerDirective(0, collection_finished=False, stop=False, shards=None)

    def stop(self) -> None:
        self._stop = True


class Receiver:
    """Takes plain bytes: what Ray can do without weights and waiting."""

    def __init__(self, nbytes: int) -> None:
        self._own = np.ones(nbytes // 4, np.float32)

    def take(self, vector: np.ndarray) -> float:
        """Copies what comes through shared memory; `time.monotonic()` after that."""
        self._own[:] = vector
        return time.monotonic()


def actor(cls: type) -> Any:
    """The class as `placement.py` makes actors, without a claim on CPUs.

    Those with a `run` that is asked meanwhile say so. Not the weight server: it has room for
    a thousand questions by itself.
    """
    calls = getattr(cls, "CALLS_AT_ONCE", None)
    options: dict[str, Any] = {} if calls is None else {"max_concurrency": calls}
    # On one host: the times of several are held against each other.
    node = ray.get_runtime_context().get_node_id()
    options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(cls).options(num_cpus=0, max_restarts=0, enable_task_events=False, **options)


def _watched(env: WaitingEnv, torso: Torso, index: int) -> WatchedRollout:
    rollout = Rollout(
        stepper=env,
        network=make_network(env.observation, env.num_actions, torso),
        settings=RolloutSettings(1, 0.99, _BLOCK, max_block_age_s=60.0),
        epsilons=lambda env_steps: np.full(1, 0.1),
        worker=index,
    )
    return WatchedRollout(rollout, env)


def _learner(torso: Torso) -> Learner:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return make_learner(Point(torso, 32, "float32", "cpu"), Options(threads=1), cuda_graph=False)


def _publish(learner: Learner, publisher: Publisher, counter: int, own: np.ndarray) -> Published:
    """What `LearnerActor` does between two updates, timed; then a memcpy of the same bytes.

    Both read what the caches hold: the update has just written the one, the first copy the
    other.
    """
    version = WeightsVersion(1, counter)
    began, started = time.monotonic(), time.perf_counter()
    online = learner.online_vector()
    publisher.publish(WeightSnapshot(version, version, 0, online, None))
    pause_s = time.perf_counter() - started
    started = time.perf_counter()
    np.copyto(own, online)
    return counter, began, pause_s, time.perf_counter() - started
