"""Shared fixtures: one local Ray cluster for every test that needs Ray."""

from __future__ import annotations

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import pytest


@pytest.fixture(scope="session")
def ray_cluster():
    """A head node with 8 logical CPUs, joined by this process; tests may add nodes."""
    import ray
    from ray.cluster_utils import Cluster

    quick_death_notice = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 4,
    }
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "include_dashboard": False,
            "_system_config": quick_death_notice,
        },
    )
    ray.init(
        address=cluster.address,
        namespace="tests",
        log_to_driver=False,
        configure_logging=False,
    )
    import fake_envs
    import ray_parts

    for module in (ray_parts, fake_envs):  # workers do not see this folder
        ray.cloudpickle.register_pickle_by_value(module)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
