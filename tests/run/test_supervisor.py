"""Who is replaced, and when a run gives up, without Ray: actors here are plain objects."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from run_parts import small

from distdqn.errors import EnvFailure, RunError
from distdqn.run import supervisor


class Ref:
    """An answer; of an actor's long call only once the actor is dead."""

    def __init__(self, is_there=True):
        self.is_there = is_there


class Actor:
    def __init__(self):
        self.life, self.ready = Ref(is_there=False), Ref()
        self.counted = []  # kinds that were replaced
        self.count_restart = SimpleNamespace(remote=self.counted.append)

    failure: EnvFailure | None = None
    env_steps = 0

    def __getattr__(self, method):
        status = SimpleNamespace(workers_alive=0, env_steps=self.env_steps)
        known = {"run": self.life, "__ray_ready__": self.ready, "bury_worker": self.failure}
        known["poll"] = SimpleNamespace(status=status)
        return SimpleNamespace(remote=lambda *_: known.get(method, ""))


class Place:
    """Makes actors; keeps the newest of each kind."""

    def __init__(self):
        self.control, self.server, self.newest = Actor(), Actor(), {}

    def create(self, kind, index, incarnation):
        self.newest[kind] = Actor()
        return self.newest[kind]


class Ray:
    def wait(self, refs, num_returns=1, timeout=None):
        there = [ref for ref in refs if ref.is_there][:num_returns]
        return there, [ref for ref in refs if ref not in there]

    error = RayActorError()

    def get(self, ref):
        raise self.error

    def kill(self, actor):
        pass


class Run:
    """A system that has started; `now` is its clock."""

    def __init__(self, tmp_path):
        self.now, self.place = 1_000.0, Place()
        self.said = []
        self.system = supervisor.System(small(tmp_path), self.place, say=self.said.append)

    def die(self, kind, after_s):
        """The newest of a kind dies so long after its birth; its successor is there afterwards."""
        self.now += after_s
        dead = self.place.newest[kind]
        dead.life.is_there = True
        self.system.poll(0)
        self.now += 31.0  # the longest pause before a worker comes back
        self.system.poll(0)
        assert self.place.newest[kind] is not dead


@pytest.fixture
def run(tmp_path, monkeypatch):
    made = Run(tmp_path)
    monkeypatch.setattr(supervisor, "ray", Ray())
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(supervisor, "answer", lambda ref, *_, **__: ref)
    monkeypatch.setattr(supervisor, "wait_until_ready", lambda *_: None)
    made.system.start()
    return made


KINDS = ["worker", "shard", "learner", "evaluator"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_fifth_death_in_a_row_ends_the_run(run, kind):
    for _ in range(4):
        run.die(kind, after_s=1.0)
    with pytest.raises(RunError, match=f"the {kind}.* died 5 times"):
        run.die(kind, after_s=1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_death_that_the_run_survives_is_written_down(run, monkeypatch, kind):
    logged = []
    monkeypatch.setattr(run.system, "_log", lambda *entry: logged.append(entry))
    run.die(kind, after_s=1.0)
    ((part, details),) = logged
    assert part.startswith(kind) and "The actor " in details


@pytest.mark.parametrize("kind", KINDS)
def test_a_death_after_a_long_life_does_not_add_to_those_before(run, kind):
    for _ in range(4):
        run.die(kind, after_s=1.0)
    for _ in range(3):
        run.die(kind, after_s=3_600.0)


def test_envs_that_never_make_a_step_end_the_run_before_the_limit(run):
    run.place.control.failure = EnvFailure("environment 'E' raised in reset: no")
    for _ in range(2):
        run.die("worker", after_s=1.0)
    assert "failure 2 of 2 allowed before the first env step, restarted in " in run.said[-1]
    with pytest.raises(EnvFailure, match="failed 3 times, and no env step was made"):
        run.die("worker", after_s=1.0)
    assert run.place.control.counted == ["worker", "worker"], "nobody took the third one's place"


def test_envs_that_have_stepped_may_fail_as_often_as_allowed(run):
    run.place.control.failure = EnvFailure("environment 'E' raised in step: no")
    run.place.control.env_steps = 1
    run.system.poll(0)
    for _ in range(10):
        run.die("worker", after_s=1.0)
    with pytest.raises(EnvFailure, match="failed 11 times, workers.max_env_failures is 10"):
        run.die("worker", after_s=1.0)


@pytest.mark.parametrize("kind", ["control", "server"])
def test_without_control_or_weight_server_a_run_ends(run, kind):
    getattr(run.place, kind).life.is_there = True
    with pytest.raises(RunError, match="died"):
        run.system.poll(0)


DIED = """The actor died unexpectedly before finishing this task.
\tclass_name: EnvWorker
\tactor_id: 1c
\tpid: 4711
\tnamespace: run
\tip: 192.0.2.2
The actor is dead because {cause}"""
EXITED = (
    "its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: {detail} Some "
    "common causes include: (1) the process was killed by the OOM killer due to high memory usage"
)
CONNECTION = "Worker unexpectedly exits with a connection error code 2. End of file."


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        (EXITED.format(detail=CONNECTION), "its process 4711 was killed or crashed"),
        (EXITED.format(detail="Worker exits with code 3."), "its process 4711 ended"),
        ("its node has died. Node Id: 07", "its node died"),
        (
            "1 worker(s) were killed due to the node running low on memory. Memory on the node",
            "Ray killed its process 4711: its node ran low on memory",
        ),
        ("of something new.", "The actor died unexpectedly before finishing this task."),
    ],
)
@pytest.mark.parametrize(
    ("kind", "replaced"),
    [
        ("worker", "replaced in 1 s, with another seed"),
        ("shard", "replaced by an empty one"),
        ("learner", "replaced from its newest state"),
        ("evaluator", "replaced"),
    ],
)
def test_a_death_and_what_follows_are_one_short_line(run, kind, replaced, cause, line, monkeypatch):
    error = RayActorError(error_msg=f"\x1b[36m{DIED.format(cause=cause)}\x1b[0m")
    monkeypatch.setattr(Ray, "error", error)

    run.die(kind, after_s=100.0)

    (said,) = run.said
    assert said.startswith(f"the {kind}") and said.endswith(f" died ({line}); {replaced}")


def test_rays_own_text_on_a_dead_process_is_not_shown():
    """Ray takes what to leave out from the environment, when it is imported."""
    code = (
        "import os, sys, distdqn.api; assert 'ray' not in sys.modules; import re, ray;"
        "from ray._private.ray_constants import RAY_DEDUP_LOGS_SKIP_REGEX as skipped;"
        "sys.exit(not re.search(skipped, 'A worker died or was killed while executing a task'))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def begun_workers(run):
    return sum(worker.actor is not None for worker in run.system._workers)


def test_workers_start_a_few_at_a_time_and_more_where_none_comes_up(tmp_path, monkeypatch):
    run = Run(tmp_path)
    config = small(tmp_path, workers__count=5)
    run.system = supervisor.System(config, run.place, say=lambda line: None, at_once=2)
    status = SimpleNamespace(workers_alive=0, env_steps=0)
    monkeypatch.setattr(supervisor, "ray", Ray())
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: run.now))
    monkeypatch.setattr(supervisor, "answer", lambda *_, **__: SimpleNamespace(status=status))
    monkeypatch.setattr(supervisor, "wait_until_ready", lambda *_: None)

    run.system.start()
    run.system.poll(0)
    assert begun_workers(run) == 2

    status.workers_alive = 1
    run.system.poll(0)
    assert begun_workers(run) == 3

    run.system.poll(0)
    run.now += 11.0  # the two that are coming up wait for something
    run.system.poll(0)
    assert begun_workers(run) == 5
