"""Why a Ray cluster cannot be joined: one line with the true cause, within seconds."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
import ray
from ray.core.generated import gcs_service_pb2 as gcs

from distdqn.errors import RunError
from distdqn.machine.joined import which_ray
from distdqn.run import joining
from distdqn.run.joining import check_cluster

TOKEN = "a" * 64


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No setting of Ray's, no token at home, and no Ray node on this host."""
    for name in list(os.environ):
        if name.startswith("RAY_A"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ENABLE_K8S_TOKEN_AUTH", raising=False)
    monkeypatch.setattr(joining, "_LOOKS_AT_PROCESSES", True)
    nodes = set()
    monkeypatch.setattr(joining, "_clusters_here", lambda: set(nodes))
    return nodes


def refused(address):
    """The line that refuses an address; it is there within seconds."""
    began = time.monotonic()
    with pytest.raises(RunError) as raised:
        check_cluster(which_ray(address))
    assert time.monotonic() - began < 60
    line = str(raised.value)
    assert "\n" not in line
    return line


@pytest.fixture
def head(bare):
    """Makes a head of a cluster that answers as Ray's does, with a node on this host."""
    servers = []

    def make(version=ray.__version__, token="", fails=None):
        def check_alive(request, context):
            if fails:
                context.abort(fails, "not today")
            if token and ("authorization", f"Bearer {token}") not in context.invocation_metadata():
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
            return gcs.CheckAliveReply(ray_version=version)

        handler = grpc.unary_unary_rpc_method_handler(
            check_alive, gcs.CheckAliveRequest.FromString, gcs.CheckAliveReply.SerializeToString
        )
        service = "ray.rpc.NodeInfoGcsService"
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"CheckAlive": handler}),)
        )
        address = f"localhost:{server.add_insecure_port('localhost:0')}"
        server.start()
        servers.append(server)
        bare.add(address)
        return address

    yield make
    for server in servers:
        server.stop(None)


@contextlib.contextmanager
def listener(answer):
    """A port where something listens that is no Ray."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    with pool, socket.create_server(("localhost", 0)) as server:
        pool.submit(_serve, server, answer)
        yield f"localhost:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def _serve(server, answer):
    kept = []
    with contextlib.suppress(OSError):
        while True:
            kept.append(server.accept()[0])
            kept[-1].sendall(answer)


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("nonsense", "is no address: give auto, or HOST:PORT"),
        ("localhost:99999", "is no address: give auto, or HOST:PORT"),
        ("host:port", "is no address: give auto, or HOST:PORT"),
        ("ray://localhost:10001", "is an address of Ray Client, which distdqn does not use"),
        ("http://localhost:8265", "ray job submit --address http://localhost:8265 -- distdqn"),
        ("auto", "no Ray cluster runs on this host; start one with `ray start --head`"),
    ],
)
def test_a_form_that_leads_nowhere_is_told_by_where_it_stands(address, cause, monkeypatch):
    line = refused(address)
    assert line.startswith(f"--address {address}") and cause in line

    monkeypatch.setenv("RAY_ADDRESS", address)
    line = refused(None)
    assert line.startswith(f"RAY_ADDRESS={address}") and cause in line


def test_nobody_listens(monkeypatch):
    line = refused("localhost:1")
    assert line.startswith("no Ray cluster at localhost:1: Connection refused")
    assert "`ray start --head`, or leave --address out" in line

    monkeypatch.setenv("RAY_ADDRESS", "localhost:1")
    line = refused("auto")
    assert line.startswith("no Ray cluster at localhost:1 (RAY_ADDRESS=localhost:1)")
    assert "or unset RAY_ADDRESS" in line


def test_a_note_of_a_cluster_that_is_gone_is_no_cluster(tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("localhost:1")

    assert refused("auto").startswith("no Ray cluster at localhost:1 (--address auto): Connection")


def test_a_host_that_is_not_known():
    assert "the host 'no-host.invalid' of --address" in refused("no-host.invalid:6379")


@pytest.mark.parametrize("hangs", ["the name", "the connection"])
def test_a_host_that_does_not_answer_is_given_up_in_seconds(hangs, monkeypatch):
    def create_connection(address, timeout):
        if hangs == "the connection":
            raise TimeoutError
        time.sleep(3600)

    monkeypatch.setattr(joining, "_TIMEOUT_S", 0.2)
    monkeypatch.setattr(socket, "create_connection", create_connection)

    assert refused("10.255.255.1:6379").startswith("no answer from 10.255.255.1:6379 within 0.2 s")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_than_ray_listens(answer, monkeypatch):
    monkeypatch.setattr(joining, "_TIMEOUT_S", 1.0)
    with listener(answer) as address:
        line = refused(address)
    assert f"what listens at {address} does not answer as the head of a Ray cluster" in line
    assert "its port is 6379" in line


def test_a_cluster_of_another_ray_names_both(head):
    line = refused(address := head(version="2.1.0"))
    assert f"at {address} runs Ray 2.1.0, this Python has {ray.__version__}" in line
    assert "install ray==2.1.0" in line


def test_without_a_node_on_this_host_the_run_has_to_be_sent(head, bare):
    address = head()
    bare.clear()

    assert refused(address).startswith(f"no node of the Ray cluster at {address} runs on this host")


def test_a_ray_that_asks_the_head_for_its_node_may_answer_where_none_is_seen(
    head, bare, monkeypatch
):
    monkeypatch.setattr(joining, "_LOOKS_AT_PROCESSES", False)
    address = head()
    bare.clear()
    check_cluster(which_ray(address))

    bare.add("localhost:1")
    assert refused(address).startswith(f"no node of the Ray cluster at {address}")


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "PERMISSION_DENIED"])
def test_what_only_another_ray_can_have_said_is_left_to_ray(head, code):
    check_cluster(which_ray(head(fails=grpc.StatusCode[code])))


def test_without_the_python_package_of_grpc_ray_itself_is_asked(head, monkeypatch):
    address = head(version="2.1.0")
    monkeypatch.setitem(sys.modules, "grpc", None)
    check_cluster(which_ray(address))


def test_auto_takes_the_cluster_of_this_host_and_asks_which_of_several(head, bare, tmp_path):
    address = head()
    check_cluster(which_ray(address))
    check_cluster(which_ray("auto"))

    bare.add("localhost:1")
    assert refused("auto").endswith(
        f"name one of them: {', '.join(sorted([address, 'localhost:1']))}"
    )
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    check_cluster(which_ray("auto"))


class TestTokens:
    """A cluster that asks for a token."""

    @pytest.fixture
    def address(self, head):
        return head(token=TOKEN)

    def test_none_is_sent_where_the_mode_is_not_token(self, address, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)

        line = refused(address)

        assert f"the Ray cluster at {address} asks for a token and gets none" in line
        assert "(RAY_AUTH_MODE is disabled)" in line and "~/.ray/auth_token" in line

    def test_there_is_none(self, address, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")

        assert refused(address).startswith("RAY_AUTH_MODE is token, and there is none in RAY_AUTH")

    def test_kubernetes_gives_ray_one(self, address, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_ENABLE_K8S_TOKEN_AUTH", "true")

        check_cluster(which_ray(address))

    def test_its_file_is_not_there(self, address, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")

        assert refused(address) == "RAY_AUTH_TOKEN_PATH=/nowhere: No such file or directory"

    @pytest.mark.parametrize("place", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "home"])
    @pytest.mark.parametrize("is_right", [True, False])
    def test_it_is_taken_or_refused_by_where_it_is_from(
        self, address, place, is_right, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        token, path = TOKEN if is_right else "b" * 64, tmp_path / ".ray" / "auth_token"
        path.parent.mkdir()
        if place == "RAY_AUTH_TOKEN":
            monkeypatch.setenv(place, token)
        else:
            path.write_text(f"{token}\n")
        if place == "RAY_AUTH_TOKEN_PATH":
            monkeypatch.setenv(place, str(path))

        if is_right:
            check_cluster(which_ray(address))
        else:
            line = refused(address)
            assert f"the Ray cluster at {address} refuses the token from " in line
            assert (str(path) if place == "home" else place) in line

    def test_a_cluster_that_ray_finds_gets_the_token_without_the_mode(self, address, monkeypatch):
        monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)

        check_cluster(which_ray("auto"))


@pytest.fixture
def real_head(tmp_path_factory):
    """`ray start --head` in a folder of its own, which asks for a token."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("r")
    words = f"--head --port={port} --num-cpus=1 --include-dashboard=false --temp-dir={folder}"
    began = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "start", *words.split()],
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert began.returncode == 0, began.stdout + began.stderr
    yield f"127.0.0.1:{port}"
    left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in str(p.info["cmdline"])]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=60)


def test_a_real_cluster_takes_the_users_token_after_an_embedded_ray_had_its_own(
    real_head, tmp_path
):
    def join(token):
        code = (
            "import os, pathlib, sys; from distdqn.run.ray_session import connect;"
            "before = dict(os.environ);"
            "connect(None, 'name', 1, 0, pathlib.Path(sys.argv[2])).close();"
            "auth = lambda d: {k: v for k, v in d.items() if k.startswith('RAY_AUTH')};"
            "assert auth(os.environ) == auth(before);"
            "session = connect(sys.argv[1], 'name', 1, 0, pathlib.Path('token'));"
            "print(session.address); session.close()"
        )
        return subprocess.run(
            [sys.executable, "-c", code, real_head, str(tmp_path / "token")],
            env=here | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
            capture_output=True,
            text=True,
            timeout=300,
        )

    # Ray's sockets need a short path.
    here = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"}
    right, wrong = join(TOKEN), join("b" * 64)

    assert right.returncode == 0 and right.stdout.strip().endswith(real_head.partition(":")[2])
    last = wrong.stderr.strip().splitlines()[-1]
    assert f"the Ray cluster at {real_head} refuses the token from RAY_AUTH_TOKEN" in last
    assert "gcs_client" not in wrong.stderr  # what Ray's core logs while it asks again
