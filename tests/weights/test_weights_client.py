"""Pulling on real Ray: the loop is not held up, and large vectors are not copied."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from distdqn.types import WeightSnapshot, WeightsVersion
from distdqn.weights.server import WeightClient, WeightServer

SIZES = {"in a message": 3, "in shared memory": 100_000}


@pytest.fixture
def server(ray_cluster):
    import ray

    actor = ray.remote(WeightServer).options(num_cpus=0).remote()
    yield actor
    ray.kill(actor)


def snapshot(counter, size, target=None, target_counter=1):
    return WeightSnapshot(
        WeightsVersion(1, counter),
        WeightsVersion(1, target_counter),
        env_steps=10 * counter,
        online=np.full(size, counter, np.float32),
        target=None if target is None else np.full(size, target, np.float32),
    )


def publish(server, *snapshots):
    import ray

    for one in snapshots:
        ray.get(server.publish.remote(one), timeout=300)


def test_a_look_before_anything_is_published_gives_none_and_waits_for_no_answer():
    unanswered = concurrent.futures.Future()
    question = SimpleNamespace(future=lambda: unanswered)
    server = SimpleNamespace(newer=SimpleNamespace(remote=lambda *versions: question))

    assert WeightClient(server).poll() is None
    assert not unanswered.done()


def test_a_look_before_anything_is_published_gives_none(server):
    assert WeightClient(server).poll() is None


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_what_is_published_comes_once_with_its_clock(server, size):
    client = WeightClient(server)
    publish(server, snapshot(1, size), snapshot(2, size))
    got = client.poll(timeout_s=300)
    assert got.version == (1, 2) and got.env_steps == 20 and got.target is None
    np.testing.assert_array_equal(got.online, np.full(size, 2, np.float32))
    assert client.poll(timeout_s=0.05) is None


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_target_comes_with_the_first_snapshot_and_when_it_changes(server, size):
    client = WeightClient(server)
    targets = []
    for counter, target, target_counter in ((1, 7.0, 1), (2, None, 1), (3, 8.0, 2)):
        publish(server, snapshot(counter, size, target, target_counter))
        targets.append(client.poll(timeout_s=300).target)
    assert targets[1] is None
    np.testing.assert_array_equal(targets[0], np.full(size, 7, np.float32))
    np.testing.assert_array_equal(targets[2], np.full(size, 8, np.float32))


def test_a_held_target_reaches_who_comes_later(server):
    publish(server, snapshot(1, 100_000, target=7.0), snapshot(2, 100_000))
    got = WeightClient(server).poll(timeout_s=300)
    assert got.version == (1, 2) and got.target[0] == 7 and got.online[0] == 2


def test_a_large_vector_is_the_same_memory_for_all_and_outlives_newer_ones(server):
    publish(server, snapshot(1, 100_000))
    first, second = (WeightClient(server) for _ in range(2))
    vectors = [client.poll(timeout_s=300).online for client in (first, second)]
    assert all(not vector.flags.writeable for vector in vectors)
    assert vectors[0].ctypes.data == vectors[1].ctypes.data
    publish(server, *(snapshot(counter, 100_000) for counter in range(2, 8)))
    newer = [first.poll(timeout_s=300) for _ in range(2)]  # its question under way, and one more
    assert newer[1].online[0] == 7
    assert (vectors[1] == 1).all()


def test_weights_outlive_the_process_that_published_them(server):
    import ray

    @ray.remote(num_cpus=0)
    class Learner:
        def publish(self, server, one):
            ray.get(server.publish.remote(dataclasses.replace(one, online=one.online + 1)))

    learner = Learner.remote()
    ray.get(learner.publish.remote(server, snapshot(1, 100_000)), timeout=300)
    ray.kill(learner)
    assert WeightClient(server).poll(timeout_s=300).online[-1] == 2


def test_a_dead_server_is_an_error(ray_cluster):
    import ray

    actor = ray.remote(WeightServer).options(num_cpus=0).remote()
    client = WeightClient(actor)
    client.poll()
    ray.kill(actor)
    with pytest.raises(ray.exceptions.RayActorError):
        client.poll(timeout_s=300)
