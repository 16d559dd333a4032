"""`distdqn doctor`: each check says what it found and what to do."""

from __future__ import annotations

import json
import shutil
import types

import psutil
import pytest

from distdqn.cli import doctor as checks
from distdqn.cli.main import main


def disk(free: float):
    return lambda path: types.SimpleNamespace(free=free)


def test_json_names_every_check(capfd):
    status = main(["doctor", "--json"])

    report = json.loads(capfd.readouterr().out)
    found = {check["name"]: check for check in report["checks"]}
    failed = [check for check in report["checks"] if check["status"] == "fail"]
    assert {"Python", "packages", "/dev/shm", "memory", "GPU", "compiler"} <= set(found)
    assert {"compile cache", "Ray's files", "socket paths", "Ray's settings"} <= set(found)
    assert status == (1 if failed else 0)
    worst = max((check["status"] for check in report["checks"]), key=["ok", "warn", "fail"].index)
    assert report["status"] == worst
    for check in report["checks"]:
        assert check["status"] in ("ok", "warn", "fail")
        assert check["found"]
        assert check["advice"] or check["status"] == "ok"


@pytest.mark.parametrize(
    ("statuses", "status", "code"),
    [(["ok", "ok"], "ok", 0), (["ok", "warn"], "warn", 0), (["fail", "warn"], "fail", 1)],
)
def test_the_worst_check_is_the_status(monkeypatch, capfd, statuses, status, code):
    found = [checks.Check("c", each, "x") for each in statuses]
    monkeypatch.setattr(checks, "_look", lambda start_ray: found)

    assert main(["doctor", "--json"]) == code
    assert json.loads(capfd.readouterr().out)["status"] == status


def test_the_table_goes_to_stderr(capsys, monkeypatch):
    monkeypatch.setattr(checks, "gpu", lambda: checks.Check("GPU", "fail", "[odd] one", "mend it"))

    assert main(["doctor"]) == 1
    output = capsys.readouterr()
    assert "[odd] one" in output.err
    assert output.out == ""


@pytest.mark.parametrize(("free", "status"), [(2**29, "warn"), (2**31, "ok")])
def test_little_shared_memory_is_a_warning(monkeypatch, free, status):
    monkeypatch.setattr(shutil, "disk_usage", disk(free))
    monkeypatch.setattr("os.path.isdir", lambda path: True)

    assert checks.shared_memory().status == status


def test_little_memory_is_a_warning(monkeypatch):
    monkeypatch.setattr(checks.machine_memory, "free_memory", lambda: 2**30)

    found = checks.memory()

    assert (found.status, found.found) == ("warn", "1.0 GiB free")


def test_a_missing_or_old_package_fails_with_the_pip_line(monkeypatch):
    requirements = ["numpy>=1", "torch>=99", "no-such-thing>=2", "ale-py>=0.9; extra == 'atari'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: requirements)

    found = checks.packages()

    assert found.status == "fail"
    assert found.advice.endswith(" -m pip install 'torch>=99' 'no-such-thing>=2'")


def test_a_missing_compiler_is_a_warning(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)

    found = checks.compiler()

    assert found.status == "warn"
    assert "no C++ compiler" in found.found
    assert "apt-get install g++" in found.advice


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISTDQN_CACHE_DIR", str(tmp_path / "file" / "below"))

    assert checks.compile_cache().status == "warn"
    monkeypatch.setenv("DISTDQN_CACHE_DIR", str(tmp_path / "new" / "folder"))
    assert checks.compile_cache().status == "ok"
    assert not (tmp_path / "new").exists(), "looking must not change anything"


@pytest.mark.parametrize(("length", "status"), [(20, "ok"), (90, "fail")])
def test_a_socket_path_above_107_bytes_fails(monkeypatch, length, status):
    monkeypatch.setenv("RAY_TMPDIR", "/" + "t" * length)

    assert checks.socket_path().status == status


def test_old_sessions_of_ray_are_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(checks, "MAX_RAY_TEMP_BYTES", 1_000)
    folder = tmp_path / "ray" / "session_1" / "logs"
    folder.mkdir(parents=True)

    assert checks.ray_temp().status == "ok"
    (folder / "raylet.out").write_bytes(b"x" * 1_001)
    found = checks.ray_temp()
    assert found.status == "warn"
    assert f"rm -r {tmp_path}/ray/session_*" in found.advice


@pytest.mark.parametrize(("mode", "status"), [("disabled", "warn"), ("token", "ok"), (None, "ok")])
def test_disabled_authentication_is_a_warning(monkeypatch, mode, status):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)

    assert checks.ray_environment().status == status


def test_a_set_ray_address_is_said(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)

    assert "join the cluster at head:6379" in checks.ray_environment().advice


class FakeProcess:
    """A process with listening sockets, as psutil shows it."""

    def __init__(self, name, addresses, mode):
        self.info = {"name": name}
        self._addresses, self._mode = addresses, mode

    def net_connections(self, kind):
        return [
            types.SimpleNamespace(
                laddr=types.SimpleNamespace(ip=ip, port=port), status=psutil.CONN_LISTEN
            )
            for ip, port in self._addresses
        ]

    def environ(self):
        return {"RAY_AUTH_MODE": self._mode}


@pytest.mark.parametrize(
    ("processes", "status", "words"),
    [
        ([], "ok", "none open"),
        ([FakeProcess("nginx", [("0.0.0.0", 80)], "")], "ok", "none open"),
        ([FakeProcess("raylet", [("127.0.0.1", 5000)], "")], "ok", "none open"),
        ([FakeProcess("gcs_server", [("0.0.0.0", 6379)], "token")], "ok", "1 open"),
        ([FakeProcess("gcs_server", [("::", 6379)], "disabled")], "warn", "not all behind a token"),
        ([FakeProcess("raylet", [("0.0.0.0", p) for p in range(9)], "token")], "ok", "9 open"),
    ],
)
def test_ports_that_are_open_without_a_token_are_a_warning(monkeypatch, processes, status, words):
    monkeypatch.setattr(psutil, "process_iter", lambda attrs: iter(processes))

    found = checks.ray_ports()

    assert found.status == status
    assert words in found.found


def test_ray_that_does_not_start_fails_with_its_last_line(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho first >&2\necho 'last line' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))

    found = checks.ray_starts()

    assert (found.status, found.found) == ("fail", "last line")
