"""An embedded Ray that does not come up is tried once more, and then named in one line."""

import contextlib
import gc
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import ray

from distdqn.config import Config
from distdqn.errors import RunError
from distdqn.run import ray_session
from distdqn.run.ray_session import connect, open_session

WAIT = "RAY_raylet_start_wait_time_s"
TIMED_OUT = "The current node timed out during startup. This could happen because\nof load."


@pytest.fixture
def inits(monkeypatch):
    """`ray.init` that takes one outcome after the other; keeps an event list."""
    events, outcomes = [], []

    def init(**options):
        events.append("init")
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return types.SimpleNamespace(address_info={"gcs_address": "here:1"}, options=options)

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(WAIT, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: events.append("shutdown"))
    monkeypatch.setattr(ray_session, "shared_memory", lambda: ("enough", ""))
    return types.SimpleNamespace(events=events, outcomes=outcomes)


def embedded(tmp_path):
    return connect(None, "run", 4, 0, tmp_path / "token")


def test_a_start_that_works_is_made_once_and_gives_ray_time(inits, tmp_path):
    inits.outcomes[:] = [None]

    session = embedded(tmp_path)

    assert inits.events == ["init"]
    assert (session.address, session.connected, session.notes) == ("here:1", True, ())
    assert int(os.environ[WAIT]) > 30  # Ray's own


@pytest.mark.parametrize(
    ("version", "set_to", "mode", "refreshed"),
    [
        ("2.52.0", None, "token", 1),
        ("2.52.0", "disabled", "disabled", 0),
        ("2.60.0", None, None, 0),  # by ray.init
    ],
)
def test_an_older_ray_is_told_to_ask_for_a_token(
    inits, tmp_path, monkeypatch, version, set_to, mode, refreshed
):
    refreshes = []

    class Config:
        initialize = refreshes.append

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "")
    monkeypatch.setattr(ray, "__version__", version)
    monkeypatch.setattr(ray_session, "RayConfig", Config)
    monkeypatch.delenv("RAY_AUTH_MODE")
    if set_to is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", set_to)
    inits.outcomes[:] = [None]

    embedded(tmp_path)

    assert os.environ.get("RAY_AUTH_MODE") == mode
    assert len(refreshes) == refreshed


@pytest.mark.parametrize("fails", [False, True])
def test_the_callers_token_is_there_again_afterwards(inits, tmp_path, monkeypatch, fails):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the caller's")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/of/the/caller")
    monkeypatch.setattr(ray_session, "RayConfig", types.SimpleNamespace(initialize=lambda _: 0))
    inits.outcomes[:] = [ValueError() if fails else None]

    if fails:
        with pytest.raises(ValueError):
            embedded(tmp_path)
    else:
        session = embedded(tmp_path)
        assert os.environ["RAY_AUTH_TOKEN"] == (tmp_path / "token").read_text()
        assert "RAY_AUTH_TOKEN_PATH" not in os.environ
        session.close()

    assert os.environ["RAY_AUTH_TOKEN"] == "the caller's"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == "/of/the/caller"
    assert not (tmp_path / "token").exists()


def test_a_start_that_timed_out_is_cleaned_up_and_tried_once_more(inits, tmp_path):
    inits.outcomes[:] = [Exception(TIMED_OUT), None]

    session = embedded(tmp_path)

    assert inits.events == ["init", "shutdown", "init"]
    (line,) = session.notes
    assert line.startswith("Ray did not start within 0 s (The current node timed out")
    assert line.endswith("the next try worked")


@pytest.mark.parametrize(
    "error", [Exception(TIMED_OUT), RuntimeError(TIMED_OUT), TimeoutError(TIMED_OUT)]
)
def test_two_failed_starts_end_in_one_line_that_says_what_was_tried(inits, tmp_path, error):
    inits.outcomes[:] = [error, error]

    with pytest.raises(RunError) as raised:
        embedded(tmp_path)

    line = str(raised.value)
    assert "\n" not in line
    assert "timed out during startup" in line and "tried 2 times" in line
    assert "ray start --head" in line and "--address auto" in line
    assert raised.value.__cause__ is error
    assert inits.events == ["init", "shutdown"] * 2


@pytest.mark.parametrize(
    "error",
    [
        ValueError("num_cpus must be positive"),
        PermissionError("/tmp/ray"),
        ray.exceptions.AuthenticationError("no token"),
        KeyboardInterrupt(),
    ],
)
def test_what_another_try_cannot_mend_is_not_tried_again(inits, tmp_path, error):
    inits.outcomes[:] = [error]

    with pytest.raises(type(error)):
        embedded(tmp_path)

    assert inits.events.count("init") == 1


@contextlib.contextmanager
def sleeping(*words):
    """A child of this process that waits, with `words` on its command line."""
    command = [sys.executable, "-c", "import time; time.sleep(3600)", *words]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def test_only_rays_own_new_processes_are_ended(inits, tmp_path, monkeypatch):
    of_ray = str(Path(ray.__file__).parent / "raylet")
    begun = contextlib.ExitStack()

    def half_start(**options):
        monkeypatch.setattr(
            ray,
            "init",
            lambda **options: types.SimpleNamespace(address_info={"gcs_address": "here:1"}),
        )
        children.update(new=begun.enter_context(sleeping(of_ray)))
        children.update(other=begun.enter_context(sleeping("compiling")))
        raise Exception(TIMED_OUT)

    monkeypatch.setattr(ray, "init", half_start)
    with begun:
        children = {"old": begun.enter_context(sleeping(of_ray))}

        embedded(tmp_path)

        assert children["new"].poll() is not None
        assert children["old"].poll() is None
        assert children["other"].poll() is None


def test_a_signal_is_heeded_before_the_next_try(inits, tmp_path):
    inits.outcomes[:] = [Exception(TIMED_OUT), None]
    looks = iter([None, KeyboardInterrupt()])

    def look():
        if (signal := next(looks)) is not None:
            raise signal

    with pytest.raises(KeyboardInterrupt):
        connect(None, "run", 4, 0, tmp_path / "token", look)

    assert inits.events == ["init", "shutdown"]


def test_a_signal_that_came_while_ray_started_leaves_no_ray(inits, tmp_path):
    inits.outcomes[:] = [None]
    folder = types.SimpleNamespace(name="run", token_path=tmp_path / "token")

    def look():
        if inits.events:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_session(Config(), folder, print, look)

    assert inits.events == ["init", "shutdown"]


def test_no_garbage_is_collected_while_ray_ends(monkeypatch):
    """Ray's core ends the process where a collection frees an ObjectRef meanwhile."""
    was = []
    monkeypatch.setattr(ray_session.ray, "shutdown", lambda: was.append(gc.isenabled()))
    ray_session.RaySession("", "run", "", connected=True).close()
    assert was == [False] and gc.isenabled()
