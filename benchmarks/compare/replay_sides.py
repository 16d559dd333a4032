"""One replay in its own process, timed on request.

    PYTHON benchmarks/compare/replay_sides.py --side cpprb --capacity 1000000

It fills itself, prints a JSON line about itself, and answers each line
`{"work": "add", "seconds": 0.1}` on stdin with the microseconds of the calls made within
that time, at least one. Started with each side's own interpreter by `replay_buffers.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

BATCH_SIZE, BLOCK = 512, 1_000
NUM_ENVS = 8  # in a block, as a worker's or a vector env's
EPISODE = 200  # transitions; RLlib takes whole episodes
EXPONENT, EPSILON, BETA = 0.6, 1e-6, 0.4


class Side(Protocol):
    """Items are CartPole's; `add` takes `BLOCK` of them, `sample` gives `BATCH_SIZE`.

    update: new priorities for what was last sampled; a uniform replay has none.
    versions: packages to name.
    """

    @property
    def versions(self) -> tuple[str, ...]: ...
    @property
    def prioritized(self) -> bool: ...
    def add(self) -> None: ...
    def sample(self) -> None: ...
    def update(self) -> None: ...
    def size(self) -> int: ...


class Ours:
    """Our `Replay`, fed with the blocks that a worker sends; with importance weights."""

    versions, prioritized = ("distdqn", "numpy", "numba"), True

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        from distdqn.replay.replay import Replay
        from distdqn.replay.sampling import PrioritizedSampler
        from distdqn.types import BEFORE_ANY, ObservationSpec, PriorityUpdate, TransitionBlock
        from distdqn.value_learning import importance_weights

        sampler = PrioritizedSampler(capacity, EXPONENT, EPSILON)
        self._replay = Replay(capacity, ObservationSpec((4,), "float32"), 2, sampler, seed=0)
        self._update, self._weights = PriorityUpdate, importance_weights
        tm1, depths = np.arange(BLOCK, dtype=np.int32), np.zeros(BLOCK, np.uint8)
        self._block = TransitionBlock(
            *(0, 0, 0, 0, 0, BEFORE_ANY),
            frames=rng.random((BLOCK + NUM_ENVS, 4), np.float32),
            tm1=tm1,
            t=tm1 + np.int32(NUM_ENVS),
            tm1_depth=depths,
            t_depth=depths,
            a_tm1=rng.integers(0, 2, BLOCK).astype(np.int32),
            r_t=np.ones(BLOCK, np.float32),
            discount_t=np.full(BLOCK, 0.99, np.float32),
            priorities=rng.random(BLOCK, np.float32),
        )
        self._priorities = rng.random(BATCH_SIZE, np.float32)
        self._item_ids = np.empty(0, np.int64)

    def add(self) -> None:
        self._replay.add(self._block)

    def sample(self) -> None:
        batch = self._replay.sample(1, BATCH_SIZE)
        self._weights(batch.probabilities, self._replay.size, BETA)
        self._item_ids = batch.item_ids[0]

    def update(self) -> None:
        self._replay.update_priorities(self._update(self._item_ids, self._priorities))

    def size(self) -> int:
        return self._replay.size


class Cpprb:
    """cpprb's PrioritizedReplayBuffer."""

    versions, prioritized = ("cpprb", "numpy"), True

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        import cpprb

        obs = {"shape": 4, "dtype": np.float32}
        fields = {"obs": obs, "next_obs": obs, "act": {"dtype": np.int32}, "rew": {}, "disc": {}}
        self._buffer = cpprb.PrioritizedReplayBuffer(capacity, fields, alpha=EXPONENT, eps=EPSILON)
        self._fields = {
            "obs": rng.random((BLOCK, 4), np.float32),
            "next_obs": rng.random((BLOCK, 4), np.float32),
            "act": rng.integers(0, 2, BLOCK).astype(np.int32),
            "rew": np.ones(BLOCK, np.float32),
            "disc": np.full(BLOCK, 0.99, np.float32),
            "priorities": rng.random(BLOCK, np.float32),
        }
        self._priorities = rng.random(BATCH_SIZE, np.float32)
        self._indexes = np.empty(0, np.int64)

    def add(self) -> None:
        self._buffer.add(**self._fields)

    def sample(self) -> None:
        self._indexes = self._buffer.sample(BATCH_SIZE, beta=BETA)["indexes"]

    def update(self) -> None:
        self._buffer.update_priorities(self._indexes, self._priorities)

    def size(self) -> int:
        return self._buffer.get_stored_size()


class StableBaselines3:
    """Stable-Baselines3's ReplayBuffer: uniform; a block goes in as vector steps of 8 envs."""

    versions, prioritized = ("stable_baselines3", "numpy", "torch"), False

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        from gymnasium import spaces
        from stable_baselines3.common.buffers import ReplayBuffer

        box, actions = spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2)
        self._buffer = ReplayBuffer(capacity, box, actions, "cpu", n_envs=NUM_ENVS)
        obs = rng.random((2, NUM_ENVS, 4), np.float32)
        zeros = np.zeros(NUM_ENVS, np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(NUM_ENVS)]
        action = rng.integers(0, 2, NUM_ENVS)
        self._step = (obs[0], obs[1], action, np.ones(NUM_ENVS, np.float32), zeros, infos)

    def add(self) -> None:
        for _ in range(BLOCK // NUM_ENVS):
            self._buffer.add(*self._step)

    def sample(self) -> None:
        self._buffer.sample(BATCH_SIZE)

    def update(self) -> None:
        """A uniform replay has no priorities."""

    def size(self) -> int:
        return self._buffer.size() * NUM_ENVS


class RLlib:
    """RLlib's PrioritizedEpisodeReplayBuffer; a block goes in as five episodes."""

    versions, prioritized = ("ray", "numpy"), True

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode
        from ray.rllib.utils.replay_buffers import PrioritizedEpisodeReplayBuffer

        self._episode = SingleAgentEpisode
        self._buffer = PrioritizedEpisodeReplayBuffer(capacity, alpha=EXPONENT)
        self._obs = rng.random((EPISODE + 1, 4), np.float32)
        self._actions = rng.integers(0, 2, EPISODE)
        self._rewards = np.ones(EPISODE, np.float32)
        self._priorities = rng.random(BATCH_SIZE)
        self._next = self._episodes()

    def _episodes(self) -> list[Any]:
        made = [
            self._episode(
                observations=list(self._obs),
                actions=list(self._actions),
                rewards=list(self._rewards),
                terminated=True,
                len_lookback_buffer=0,
            )
            for _ in range(BLOCK // EPISODE)
        ]
        for episode in made:
            episode.to_numpy()
        return made

    def add(self) -> None:
        self._buffer.add(self._next)

    def prepare(self) -> None:
        """New episodes, since an id that is there already would be continued; not timed."""
        self._next = self._episodes()

    def sample(self) -> None:
        self._buffer.sample(num_items=BATCH_SIZE, n_step=1, beta=BETA)

    def update(self) -> None:
        self._buffer.update_priorities(self._priorities)

    def size(self) -> int:
        return self._buffer.get_num_timesteps()


class TorchRL:
    """TorchRL's TensorDictPrioritizedReplayBuffer.

    Its segment trees are compiled code, which loads only beside the PyTorch it was built
    with; where it does not, its uniform TensorDictReplayBuffer takes the place.
    """

    versions = ("torchrl", "tensordict", "torch")

    def __init__(self, capacity: int, rng: np.random.Generator) -> None:
        import torch
        from tensordict import TensorDict
        from torchrl.data import (
            LazyTensorStorage,
            TensorDictPrioritizedReplayBuffer,
            TensorDictReplayBuffer,
        )

        self.prioritized = _loads("torchrl._torchrl")
        storage = LazyTensorStorage(capacity)
        self._buffer = (
            TensorDictPrioritizedReplayBuffer(
                alpha=EXPONENT,
                beta=BETA,
                eps=EPSILON,
                storage=storage,
                batch_size=BATCH_SIZE,
                priority_key="td_error",
            )
            if self.prioritized
            else TensorDictReplayBuffer(storage=storage, batch_size=BATCH_SIZE)
        )
        arrays = {
            "observation": rng.random((BLOCK, 4), np.float32),
            "action": rng.integers(0, 2, BLOCK),
            "td_error": rng.random(BLOCK, np.float32),
        }
        following = {
            "observation": rng.random((BLOCK, 4), np.float32),
            "reward": np.ones((BLOCK, 1), np.float32),
            "terminated": np.zeros((BLOCK, 1), bool),
        }
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        later = {name: torch.from_numpy(array) for name, array in following.items()}
        self._block = TensorDict({**tensors, "next": TensorDict(later, [BLOCK])}, [BLOCK])
        self._priorities = torch.from_numpy(rng.random(BATCH_SIZE, np.float32))
        self._sampled: Any = None

    def add(self) -> None:
        self._buffer.extend(self._block)

    def sample(self) -> None:
        self._sampled = self._buffer.sample()

    def update(self) -> None:
        if not self.prioritized:
            return
        self._sampled["td_error"] = self._priorities
        self._buffer.update_tensordict_priority(self._sampled)

    def size(self) -> int:
        return len(self._buffer)


def _loads(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(error, flush=True)
        return False
    return True


SIDES: dict[str, Callable[[int, np.random.Generator], Side]] = {
    "distdqn": Ours,
    "cpprb": Cpprb,
    "sb3": StableBaselines3,
    "rllib": RLlib,
    "torchrl": TorchRL,
}


def timed(work: Callable[[], Any], before: Callable[[], Any], seconds: float) -> list[float]:
    """Microseconds of each call within `seconds`, of one at least; `before` each, not timed."""
    taken: list[float] = []
    deadline = time.perf_counter() + seconds
    while not taken or time.perf_counter() < deadline:
        before()
        began = time.perf_counter()
        work()
        taken.append(1e6 * (time.perf_counter() - began))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if "torch" in (side := SIDES[options.side]).versions:  # type: ignore[attr-defined]
        import torch

        torch.set_num_threads(options.threads)
    replay = side(options.capacity, np.random.default_rng(0))
    prepare = getattr(replay, "prepare", lambda: None)

    def sample_and_update() -> None:
        replay.sample()
        replay.update()

    began = time.perf_counter()
    for _ in range(-(-options.capacity // BLOCK)):
        prepare()
        replay.add()
    about = {
        "items": replay.size(),
        "prioritized": replay.prioritized,
        "versions": {name: version(name) for name in replay.versions},
        "fill_s": time.perf_counter() - began,
    }
    print(json.dumps(about), flush=True)
    works = {"add": (replay.add, prepare), "sample and update": (sample_and_update, lambda: None)}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(timed(*works[request["work"]], request["seconds"])), flush=True)


if __name__ == "__main__":
    main()
