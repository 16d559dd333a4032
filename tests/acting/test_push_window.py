"""A worker's window: bounded, in rotation, and no block is lost with a shard."""

import time

import pytest
from ray_parts import block, shard_map, shards  # noqa: F401

TIMEOUT_S = 300


def collect_until(window, condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        window.collect(0.05)


@pytest.fixture
def window(ray_cluster):
    from distdqn.acting.push_window import PushWindow

    return PushWindow(max_in_flight=2, first_shard=0)


def test_shards_that_keep_up_get_equal_shares(window, shards):  # noqa: F811
    import ray

    from distdqn.types import BEFORE_ANY

    handles = shards(3)
    window.set_shards(shard_map(handles))
    for sequence in range(30):
        window.push(block(10, sequence))
        collect_until(window, lambda: not window.in_flight)
    inserts = [ray.get(h.grant.remote(0, BEFORE_ANY), timeout=300).inserts for h in handles]
    assert inserts == [100, 100, 100]
    assert (window.accepted, window.refused) == (300, 0)


def test_the_window_is_full_while_shards_wait_for_credit(window, shards):  # noqa: F811
    (handle,) = shards(1, waiting=True)
    window.set_shards(shard_map((handle,)))
    window.push(block(10, 0))
    window.push(block(10, 1))
    window.collect(0.2)
    assert window.full
    assert window.in_flight == 20
    with pytest.raises(AssertionError, match="full window"):
        window.push(block(10, 2))


def test_a_shard_that_waits_for_credit_is_passed_over(window, shards):  # noqa: F811
    waiting, free = shards(1, waiting=True)[0], shards(1)[0]
    window.set_shards(shard_map((waiting, free)))
    window.push(block(10, 0))
    for sequence in range(1, 5):
        collect_until(window, lambda: not window.full)
        window.push(block(10, sequence))
    collect_until(window, lambda: window.accepted == 40)
    assert window.in_flight == 10


def test_blocks_of_a_dead_shard_go_to_another(window, shards):  # noqa: F811
    import ray

    dying, living = shards(1, waiting=True)[0], shards(1)[0]
    window.set_shards(shard_map((dying, living)))
    window.push(block(10, 0))
    ray.kill(dying)
    collect_until(window, lambda: window.accepted == 10)
    assert window.in_flight == 0


def test_without_any_living_shard_blocks_wait_for_a_new_map(window, shards):  # noqa: F811
    import ray

    (dying,) = shards(1, waiting=True)
    window.set_shards(shard_map((dying,)))
    window.push(block(10, 0))
    ray.kill(dying)
    for _ in range(20):  # its death is noticed meanwhile
        window.collect(timeout_s=0.1)
    assert window.in_flight == 10
    window.set_shards(shard_map(shards(1, epoch=1), generation=1, epoch=1))
    collect_until(window, lambda: window.accepted == 10)


def test_refusals_are_counted_as_such(window, shards):  # noqa: F811
    import ray

    (handle,) = shards(1)
    ray.get(handle.close.remote(), timeout=300)
    window.set_shards(shard_map((handle,)))
    window.push(block(10, 0))
    collect_until(window, lambda: not window.in_flight)
    assert (window.accepted, window.refused) == (0, 10)
