"""Shards and blocks for tests on real Ray; pickled by value, see conftest."""

import os
from functools import partial

import numpy as np
import pytest

from distdqn.types import BEFORE_ANY, ObservationSpec, TransitionBlock


def build_replay(shard, epoch, prioritized):
    from distdqn.replay.replay import Replay
    from distdqn.replay.sampling import PlainSampler, PrioritizedSampler

    capacity = 4096
    sampler = PrioritizedSampler(capacity, 0.6, 1e-6) if prioritized else PlainSampler(capacity)
    return Replay(
        capacity=capacity,
        observation=ObservationSpec((1,), "float32"),
        num_actions=2,
        sampler=sampler,
        seed=shard,
        epoch=epoch,
    )


def build_shard(shard, epoch, prioritized):
    from distdqn.replay.shard import ShardAccount

    return ShardAccount(build_replay(shard, epoch, prioritized), shard)


def ignore(report):
    del report


def block(num, sequence=0, worker=0):
    return TransitionBlock(
        worker=worker,
        incarnation=0,
        sequence=sequence,
        collected=num,
        refused=0,
        weights_version=BEFORE_ANY,
        frames=np.zeros((num + 1, 1), np.float32),
        tm1=np.arange(num, dtype=np.int32),
        t=np.arange(1, num + 1, dtype=np.int32),
        tm1_depth=np.zeros(num, np.uint8),
        t_depth=np.zeros(num, np.uint8),
        a_tm1=np.zeros(num, np.int32),
        r_t=np.zeros(num, np.float32),
        discount_t=np.ones(num, np.float32),
    )


@pytest.fixture
def shards(ray_cluster):
    import ray

    from distdqn.replay.shard import ReplayShard

    made = []

    def make(count, epoch=0, waiting=False, prioritized=False):
        insert_limit = 1 if waiting else 10_000
        new = [
            ray.remote(ReplayShard)
            .options(num_cpus=0)
            .remote(partial(build_shard, i, epoch, prioritized), insert_limit, ignore, 1.0)
            for i in range(count)
        ]
        made.extend(new)
        if waiting:  # an empty shard takes one block without credit
            ray.get([actor.add.remote(block(1, worker=99)) for actor in new], timeout=300)
        ray.get([actor.__ray_ready__.remote() for actor in new], timeout=300)
        return tuple(new)

    yield make
    for actor in made:
        ray.kill(actor)


def shard_map(handles, generation=0, epoch=0):
    from distdqn.types import ShardMap

    return ShardMap(generation, handles, (epoch,) * len(handles))


def make_cartpole():
    import gymnasium

    return gymnasium.make("CartPole-v1")


def linear_network(observation_space, num_actions):
    from torch import nn

    return nn.Linear(observation_space.shape[0], num_actions)


def network_of_wrong_shape(observation_space, num_actions):
    from torch import nn

    return nn.Linear(observation_space.shape[0], num_actions + 3)


def network_of_wrong_shape_elsewhere(here, observation_space, num_actions):
    make = linear_network if os.getpid() == here else network_of_wrong_shape
    return make(observation_space, num_actions)


def nodes_of_actors(class_name):
    """Node ids of the living actors of a class."""
    from ray._private.state import actors  # the public list needs the dashboard

    return [
        actor["Address"]["NodeID"]
        for actor in actors().values()
        if actor["ActorClassName"] == class_name and actor["State"] == "ALIVE"
    ]
