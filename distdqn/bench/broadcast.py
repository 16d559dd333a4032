"""How long new weights take to the last worker, and what publishing costs the learner.

A publication begins when the training thread starts to copy its vector and ends when the last
worker acts with it: after the copy, a call, shared memory, an answer to each worker, each
worker's env step under way, and its own copy. Workers act and the learner makes updates all
the while, so where cores are fewer than processes the figures are also about waiting for a core.

The limit is one `ray.put` of the same bytes, one call with the reference, and one copy out of
shared memory, between the publications; the pause's is a memcpy.

Env worker, publisher, weight server and network are those of a run; only the env waits in
place of computing, the learner makes its updates on one minibatch, and blocks go nowhere.
"""

import contextlib
import dataclasses
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distdqn import types
from distdqn.acting.env_worker import EnvWorker
from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.bench import learner as bare
from distdqn.bench.alone import bare_updates
from distdqn.bench.result import Case, Result, new_result
from distdqn.bench.synthetic import TASKS, Task, Torso, make_frames
from distdqn.errors import RunError, begun
from distdqn.learning.learner import Learner
from distdqn.learning.publish import Publisher
from distdqn.learning.training import learner_report
from distdqn.machine.memory import tree_pss_bytes
from distdqn.networks.q_network import make_network
from distdqn.run.actors import actor_class
from distdqn.run.ray_session import connect
from distdqn.weights.server import WeightServer

_WARM_UP = 3  # publications that are not counted
_TIMEOUT_S = 180.0
_CPUS_BESIDES = 3  # processes that Ray is to have ready: learner, weight server, receiver
_REPORT_PERIOD_S = 0.25

Act = tuple[int, float]
"""Counter of the weights and `time.monotonic()` when a worker first acted with them."""
Published = tuple[int, float, float, float]
"""Counter, `time.monotonic()` at the beginning, seconds of the pause, seconds of a memcpy."""
_NOTE = (
    "workers look for weights between env steps: of each time, up to one wait of the env is "
    "spent in a step that had begun; the limit has none"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What is broadcast, and to how many.

    networks: "mlp" (CartPole's, 0.04 MB), "minatar" (0.5 MB), "nature" (6.7 MB).
    workers: env workers, one env each; the most of them are started once.
    env_wait_ms: how long a step of their env waits.
    repeats: publications of each case.
    seconds: between two publications.
    """

    networks: tuple[Torso, ...] = ("mlp", "nature")
    workers: tuple[int, ...] = (1, 4, 16)
    env_wait_ms: float = 5.0
    repeats: int = 50
    seconds: float = 0.3


QUICK = Options(networks=("nature",), workers=(2,), repeats=10, seconds=0.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Publication:
    """Seconds of one publication, and of the limits just before it.

    last, first: from its beginning to the last and to the first worker's action.
    pause: of the training thread.  memcpy: of as many bytes there.
    put: `ray.put`, a call and a copy out.
    """

    last: float
    first: float
    pause: float
    memcpy: float
    put: float


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures on an embedded Ray, or on the one that this process is connected to.

    Raises RunError where Ray does not start.
    """
    most = max(options.workers)
    cpus = most + _CPUS_BESIDES
    cases: list[Case] = []
    say(f"starts {most} workers and a learner")
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(connect(None, "bench-broadcast", cpus, 0, Path(folder) / "ray_token")),
        begun(),
        _started(BroadcastWorker, most) as workers,
        _started(BroadcastLearner) as (learner,),
    ):
        for torso in options.networks:
            for count in options.workers:
                found, cpu_s = _measure(torso, workers[:count], learner, options)
                cases += cases_of(torso, count, found, cpu_s, options)
                say(f"{cases[-2].label}: {cases[-2].value.median:.1f} ms to the last worker")
    return new_result("broadcast", options, cases, [_NOTE])


@contextlib.contextmanager
def _started(cls: type, count: int = 1, *arguments: Any) -> Iterator[list[Any]]:
    """Actors as a run makes them, without a claim on CPUs; killed at the end.

    They are on one host, since the times of several are held against each other. Those with
    a `run` that is asked meanwhile say so. Not the weight server: it has room for a thousand
    questions by itself.
    """
    node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    calls = getattr(cls, "CALLS_AT_ONCE", None)
    kind = actor_class(cls, scheduling_strategy=node, max_concurrency=calls)
    actors = [kind.remote(*arguments) for _ in range(count)]
    try:
        ray.get([one.__ray_ready__.remote() for one in actors], timeout=_TIMEOUT_S)
        yield actors
    finally:
        for one in actors:
            ray.kill(one)


def _measure(
    torso: Torso, workers: Sequence[Any], learner: Any, options: Options
) -> tuple[list[Publication], float]:
    """The publications of one case, and the weight server's CPU time for each of them.

    Server and control are the case's own.
    """
    found, wait_s = [], options.env_wait_ms / 1e3
    with contextlib.ExitStack() as stack:
        (server,) = stack.enter_context(_started(WeightServer))
        (control,) = stack.enter_context(_started(BroadcastControl))
        pid = ray.get(server.__ray_call__.remote(lambda _: os.getpid()), timeout=_TIMEOUT_S)
        process = psutil.Process(pid)
        nbytes = ray.get(learner.nbytes.remote(torso), timeout=_TIMEOUT_S)
        (receiver,) = stack.enter_context(_started(Receiver, 1, nbytes))
        vector = np.ones(nbytes // 4, np.float32)
        running = [learner.run.remote(torso, server, control)]
        for index, worker in enumerate(workers):
            running.append(worker.run.remote(index, torso, wait_s, server, control))
        for repeat in range(_WARM_UP + options.repeats):
            if repeat == _WARM_UP:
                cpu_before = sum(process.cpu_times()[:2])  # user and system
            began = time.monotonic()
            taken = ray.get(receiver.take.remote(ray.put(vector)), timeout=_TIMEOUT_S)
            found.append(_publication(workers, learner, taken - began, options.seconds))
        server_cpu_s = sum(process.cpu_times()[:2]) - cpu_before
        ray.get([control.stop.remote(), learner.stop.remote()], timeout=_TIMEOUT_S)
        ray.get(running, timeout=_TIMEOUT_S)
    return found[_WARM_UP:], server_cpu_s / options.repeats


def _publication(workers: Sequence[Any], learner: Any, put_s: float, seconds: float) -> Publication:
    """Publishes, and returns once all workers have acted with that, after `seconds` at least.

    Raises RunError where they did not for minutes.
    """
    counter, began, pause, memcpy = ray.get(learner.publish.remote(), timeout=_TIMEOUT_S)
    deadline = began + _TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(seconds)
        acted = ray.get([worker.acted.remote() for worker in workers], timeout=_TIMEOUT_S)
        if all(newest == counter for newest, _ in acted):
            times = [at - began for _, at in acted]
            return Publication(max(times), min(times), pause, memcpy, put_s)
    raise RunError(f"the workers did not act with new weights within {_TIMEOUT_S:g} s")


def cases_of(
    torso: Torso, workers: int, found: Sequence[Publication], cpu_s: float, options: Options
) -> list[Case]:
    ms = {
        field.name: [1e3 * getattr(one, field.name) for one in found]
        for field in dataclasses.fields(Publication)
    }
    details = {
        "p95_ms": float(np.percentile(ms["last"], 95)),
        "first_worker_ms": float(np.median(ms["first"])),
        "env_wait_ms": options.env_wait_ms,
        "cpu_s is of": "the weight server",
    }
    last: dict[str, Any] = {"cpu_s": cpu_s, "peak_bytes": tree_pss_bytes(), "details": details}
    pause: dict[str, Any] = {"details": {"p95_ms": float(np.percentile(ms["pause"], 95))}}
    to_last = ms["last"], ms["put"], "ray.put, one call, one copy out"
    pausing = ms["pause"], ms["memcpy"], "memcpy of the same bytes"
    settings: dict[str, Any] = {"network": torso, "workers": workers}
    return [
        Case.of("publish to last action", settings, "ms", *to_last, better="lower", **last),
        Case.of("pause of the training thread", settings, "ms", *pausing, better="lower", **pause),
    ]


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
        self._step = types.Step(
            obs_t=frames, next_obs=frames, r_t=zero.astype(np.float32), raw_reward=zero, valid=yes,
            terminated=no, truncated=no, ended=no, restarted=no, starts=no, bad=no, bad_what="",
            action_mask_t=None, next_action_mask=None,
        )  # fmt: skip

    def reset(self, **_: Any) -> np.ndarray:
        return self._step.next_obs

    def expect(self, counter: int) -> None:
        """The next action is the first by these weights."""
        self._new = counter

    def step(self, _actions: np.ndarray) -> types.Step:
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

    def set_weights(self, snapshot: types.WeightSnapshot) -> None:
        self._rollout.set_weights(snapshot)
        self._env.expect(snapshot.version.counter)

    def collect(self, max_transitions: int, until: float) -> None:
        self._rollout.collect(max_transitions, until)

    def flush(self) -> None:
        """Nobody gets what the last block holds."""


class BroadcastWorker:
    """A process for one env worker after the other."""

    CALLS_AT_ONCE = 2

    def __init__(self) -> None:
        self._env: WaitingEnv | None = None

    def run(self, index: int, torso: Torso, wait_s: float, server: Any, control: Any) -> None:
        """Acts until `control` says stop."""
        torch.set_num_threads(1)
        env = self._env = WaitingEnv(TASKS[torso], wait_s)

        def build() -> Any:
            network = make_network(env.observation, env.num_actions, torso)
            # Blocks of 64 transitions, as the Atari presets have of each env.
            settings = RolloutSettings(1, 0.99, 64, max_block_age_s=60.0)
            rollout = Rollout(env, network, settings, lambda _: np.full(1, 0.1), worker=index)
            return WatchedRollout(rollout, env)

        EnvWorker(
            build=build,
            stream=(index, 1),
            control=control,
            weight_server=server,
            max_in_flight=1,
            env="WaitingEnv",
            construct_limit=(_TIMEOUT_S, "was not constructed"),
            env_timeout_s=_TIMEOUT_S,
            report_period_s=_REPORT_PERIOD_S,
        ).run(types.ShardMap())

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
            server, control, lambda: (learner_report(learner), -1), _REPORT_PERIOD_S
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
        return self._published.get(timeout=30.0)

    def stop(self) -> None:
        self._stopped.set()


class BroadcastControl:
    """Answers reports: go on, until `stop`."""

    def __init__(self) -> None:
        self._stop = False

    def report_worker(self, *_: Any) -> types.WorkerDirective:
        return types.WorkerDirective(2**62, 0, finish=False, stop=self._stop, shards=None)

    def report_learner(self, *_: Any) -> types.LearnerDirective:
        return types.LearnerDirective(collection_finished=False, stop=False, shards=None)

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


def _learner(torso: Torso) -> Learner:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    point = bare.Point(torso, 32, "float32", "cpu")
    return bare.make_learner(point, bare.Options(threads=1), cuda_graph=False)


def _publish(learner: Learner, publisher: Publisher, counter: int, own: np.ndarray) -> Published:
    """What `LearnerActor` does between two updates, timed; then a memcpy of the same bytes.

    Both read what caches hold: the update has just written the one, the first copy the other.
    """
    version = types.WeightsVersion(1, counter)
    began, started = time.monotonic(), time.perf_counter()
    online = learner.online_vector()
    publisher.publish(types.WeightSnapshot(version, version, 0, online, None))
    pause_s = time.perf_counter() - started
    started = time.perf_counter()
    np.copyto(own, online)
    return counter, began, pause_s, time.perf_counter() - started
