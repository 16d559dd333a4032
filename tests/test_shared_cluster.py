"""The tests' own Ray: one failed start fails no more than the test that asked."""

import pytest
from shared_cluster import MOST_TRIES, TRIES, SharedCluster


class Fake:
    def __init__(self, number):
        self.cluster, self.alive, self.stopped = number, True, False

    def is_alive(self):
        return self.alive

    def stop(self):
        self.stopped = True


class Starts:
    """`start` that fails as often as it is told, and remembers what it made."""

    def __init__(self, failures):
        self.failures, self.tries, self.made = failures, 0, []

    def __call__(self):
        self.tries += 1
        if self.tries <= self.failures:
            raise Exception(f"the current node timed out during startup {self.tries}")
        self.made.append(Fake(self.tries))
        return self.made[-1]


def test_nothing_starts_before_it_is_asked_for_and_then_once():
    start = Starts(failures=0)
    shared = SharedCluster(start)
    assert start.tries == 0
    assert [shared.get(), shared.get()] == [1, 1]
    shared.stop()
    assert start.made[0].stopped


def test_a_failed_start_is_tried_again_at_once():
    assert SharedCluster(Starts(failures=1)).get() == 2


def test_the_test_that_asks_fails_and_the_next_one_tries_anew():
    shared = SharedCluster(Starts(failures=TRIES))
    with pytest.raises(RuntimeError, match="tried 2 times: .* startup 1; .* startup 2"):
        shared.get()
    assert shared.get() == TRIES + 1


def test_a_machine_that_cannot_start_ray_does_not_try_for_ever():
    start = Starts(failures=10**6)
    shared = SharedCluster(start)
    for _ in range(10):
        with pytest.raises(RuntimeError, match="did not start"):
            shared.get()
    assert start.tries == MOST_TRIES


def test_a_cluster_that_died_between_tests_is_replaced():
    start = Starts(failures=0)
    shared = SharedCluster(start)
    shared.get()
    start.made[0].alive = False
    assert shared.get() == 2
    assert start.made[0].stopped
