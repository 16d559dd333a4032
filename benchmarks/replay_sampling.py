"""Times one replay in one process: add, sample and update priorities.

Both sides of a comparison run alternately in this process: with cpprb installed
(`pip install cpprb`), its prioritized buffer does the same work on the same sizes.

    python benchmarks/replay_sampling.py --json
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from distdqn.replay import Replay
from distdqn.sampling import PrioritizedSampler, UniformSampler
from distdqn.types import BEFORE_ANY, ObservationSpec, PriorityUpdate, TransitionBlock

CARTPOLE = ObservationSpec((4,), "float32")
NUM_ENVS = 16
EXPONENT, EPSILON = 0.6, 1e-6


class Contender(Protocol):
    """What is timed: each call does one piece of the work."""

    def add(self) -> None: ...
    def sample(self) -> None: ...
    def update(self) -> None: ...


class Ours:
    """distdqn.replay.Replay, fed with blocks of 16 envs' time-major streams."""

    def __init__(self, sizes: argparse.Namespace, rng: np.random.Generator) -> None:
        sampler = PrioritizedSampler(sizes.capacity, EXPONENT, EPSILON)
        self.replay = Replay(sizes.capacity, CARTPOLE, 2, sampler, seed=0)
        self._block = make_block(sizes.block, rng)
        self._batch_size = sizes.batch_size
        self._priorities = rng.random(sizes.batch_size, np.float32)
        self._item_ids = np.empty(0, np.int64)

    def add(self) -> None:
        self.replay.add(self._block)

    def sample(self) -> None:
        self._item_ids = self.replay.sample(1, self._batch_size).item_ids[0]

    def update(self) -> None:
        self.replay.update_priorities(PriorityUpdate(self._item_ids, self._priorities))


class Cpprb:
    """cpprb.PrioritizedReplayBuffer with the same fields."""

    def __init__(self, sizes: argparse.Namespace, rng: np.random.Generator) -> None:
        import cpprb  # type: ignore[import-not-found]

        obs = {"shape": 4, "dtype": np.float32}
        fields = {"obs": obs, "next_obs": obs, "act": {"dtype": np.int32}, "rew": {}, "disc": {}}
        self._buffer = cpprb.PrioritizedReplayBuffer(
            sizes.capacity, fields, alpha=EXPONENT, eps=EPSILON
        )
        block = make_block(sizes.block, rng)
        self._fields = {
            "obs": block.frames[block.tm1],
            "next_obs": block.frames[block.t],
            "act": block.a_tm1,
            "rew": block.r_t,
            "disc": block.discount_t,
            "priorities": block.priorities,
        }
        self._batch_size = sizes.batch_size
        self._priorities = rng.random(sizes.batch_size, np.float32)
        self._indexes = np.empty(0, np.int64)

    def add(self) -> None:
        self._buffer.add(**self._fields)

    def sample(self) -> None:
        self._indexes = self._buffer.sample(self._batch_size, beta=0.4)["indexes"]

    def update(self) -> None:
        self._buffer.update_priorities(self._indexes, self._priorities)


def make_block(num: int, rng: np.random.Generator) -> TransitionBlock:
    """A block as a worker with 16 envs seals it: t lies one vector step after tm1."""
    tm1 = np.arange(num, dtype=np.int32)
    return TransitionBlock(
        *(0, 0, 0, 0, 0, BEFORE_ANY),
        frames=rng.random((num + NUM_ENVS, 4), np.float32),
        tm1=tm1,
        t=tm1 + NUM_ENVS,
        tm1_depth=np.zeros(num, np.uint8),
        t_depth=np.zeros(num, np.uint8),
        a_tm1=rng.integers(0, 2, num).astype(np.int32),
        r_t=np.ones(num, np.float32),
        discount_t=np.full(num, 0.99, np.float32),
        priorities=rng.random(num, np.float32),
    )


def time_us(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - started)


def measure(contenders: dict[str, Contender], sizes: argparse.Namespace) -> dict[str, Any]:
    """Microseconds of each piece of work, `repeats` times, the contenders taking turns."""
    for contender in contenders.values():
        for _ in range(-(-sizes.capacity // sizes.block)):
            contender.add()
    times: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}

    def note(name: str, work: str, microseconds: float) -> None:
        times[name].setdefault(work, []).append(microseconds)

    for _ in range(sizes.repeats):
        for name, contender in contenders.items():
            note(name, f"add {sizes.block}", time_us(contender.add))
            sampled = time_us(contender.sample)
            updated = time_us(contender.update)
            note(name, f"sample {sizes.batch_size}", sampled)
            note(name, f"update {sizes.batch_size}", updated)
            note(name, f"sample and update {sizes.batch_size}", sampled + updated)
    return {name: {work: summary(us) for work, us in of.items()} for name, of in times.items()}


def measure_uniform(sizes: argparse.Namespace) -> dict[str, float]:
    """A superbatch of 32 x 128 from 10,000 items, as CleanRL's CartPole setting draws them."""
    rng = np.random.default_rng(2)
    replay = Replay(10_000, CARTPOLE, 2, UniformSampler(10_000), seed=0)
    for _ in range(12):
        replay.add(make_block(1_000, rng))
    replay.sample(32, 128)
    return summary([time_us(lambda: replay.sample(32, 128)) for _ in range(sizes.repeats)])


def summary(microseconds: list[float]) -> dict[str, float]:
    return {
        "median_us": round(statistics.median(microseconds), 1),
        "min_us": round(min(microseconds), 1),
        "max_us": round(max(microseconds), 1),
    }


def ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Their median over ours: above 1 where ours is faster."""
    return {
        work: round(theirs[work]["median_us"] / of["median_us"], 2) for work, of in ours.items()
    }


def print_table(result: dict[str, Any]) -> None:
    line = "{:<38}{:>10}{:>10}{:>10}{:>18}"
    print(line.format("microseconds", "median", "min", "max", "cpprb / distdqn"))
    for name in ("distdqn", "cpprb", "uniform"):
        for work, of in result.get(name, {}).items():
            ratio = result.get("ratio", {}).get(work, "") if name == "distdqn" else ""
            print(line.format(f"{name}: {work}", *of.values(), ratio))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--capacity", type=int, default=1_000_000, help="items (default 1e6)")
    parser.add_argument("--block", type=int, default=1_000, help="transitions per add")
    parser.add_argument("--batch-size", type=int, default=512, help="items per sample and update")
    parser.add_argument("--repeats", type=int, default=500, help="timed calls of each kind")
    parser.add_argument("--json", action="store_true", help="machine output only, on stdout")
    return parser.parse_args()


def main() -> None:
    sizes, rng = parse_arguments(), np.random.default_rng(0)
    contenders: dict[str, Contender] = {"distdqn": Ours(sizes, rng)}
    if importlib.util.find_spec("cpprb"):
        contenders["cpprb"] = Cpprb(sizes, rng)
    else:
        print("cpprb is not installed: no comparison", file=sys.stderr)
    result: dict[str, Any] = measure(contenders, sizes)
    result["uniform"] = {"sample 32 x 128": measure_uniform(sizes)}
    if "cpprb" in contenders:
        result["ratio"] = ratios(result["distdqn"], result["cpprb"])
    if sizes.json:
        print(json.dumps(result, indent=2))
    else:
        print_table(result)


if __name__ == "__main__":
    main()
