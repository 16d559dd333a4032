"""Shared fixtures: one local Ray cluster for every test that needs Ray."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# Threads that wait for one another sleep rather than spin: others use the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Ray reads these when it is imported; its own limits are short on a slow, busy machine.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "60")  # a second each

# A shell that starts us in the background has us ignore Ctrl-C, and with us what we start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from shared_cluster import LocalRay, SharedCluster


@pytest.fixture(scope="session")
def shared_cluster():
    """Starts nothing itself: pytest would give its failure to every later test."""
    shared = SharedCluster(LocalRay)
    yield shared
    shared.stop()


@pytest.fixture
def apart(monkeypatch):
    """As in a process that has not joined Ray, though the tests may have."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("distdqn.machine.joined.has_joined_ray", lambda: False)


@pytest.fixture
def ray_cluster(shared_cluster):
    """A head node with 8 logical CPUs, joined by this process; tests may add nodes."""
    cluster = shared_cluster.get()
    import fake_envs
    import ray
    import ray_parts

    for module in (ray_parts, fake_envs):  # workers do not see this folder
        ray.cloudpickle.register_pickle_by_value(module)
    return cluster
