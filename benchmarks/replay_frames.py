"""Times and weighs a replay of stacked pictures, against what the machine can do.

Without flags: stacks of one batch gathered from the frame ring, in turn with
`torch.index_select` over the same rows; one thread, every call at places of its own.
`--memory` fills a replay with Breakout played at random and weighs the process;
`--compression` times and weighs such a replay plain and compressed.

    python benchmarks/replay_frames.py --json
    python benchmarks/replay_frames.py --memory --n-step 3
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.acting.n_step import NStepAccumulator
from distdqn.replay.frame_ring import FrameRing
from distdqn.replay.layout import planned_frames_per_item
from distdqn.replay.replay import Replay
from distdqn.replay.sampling import PrioritizedSampler
from distdqn.types import ObservationSpec, TransitionBlock

NUM_ENVS, NUM_ACTIONS, STEPS_PER_ENV = 8, 4, 64
PICTURE = ObservationSpec((84, 84), "uint8", stack=4)
COPIED = 2 * 4 * 84 * 84  # bytes of a transition whose observations are copied whole


def alternate(calls: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each call, in turn and in an order drawn anew; call k gets a number of
    its own, so that no one finds in the cache what another has read."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    order, number = np.random.default_rng(1), 0
    for _ in range(repeats + 2):
        for name in order.permutation(list(calls)).tolist():
            started = time.perf_counter()
            calls[name](number)
            taken[name].append(1e3 * (time.perf_counter() - started))
            number += 1
    return {
        name: {
            "median_ms": round(statistics.median(times[2:]), 3),
            "min_ms": round(min(times[2:]), 3),
        }
        for name, times in taken.items()
    }


def measure_gather(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides copy `[2 * batch * stack]` rows of 7,056 bytes into memory they keep."""
    import torch

    torch.set_num_threads(1)
    ring, rng = FrameRing(arguments.frames, PICTURE, NUM_ACTIONS), np.random.default_rng(0)
    for start in range(0, arguments.frames, 1_000):
        count = min(1_000, arguments.frames - start)
        ring.append(rng.integers(0, 256, (count, 84, 84), np.uint8), None, oldest=0)
    rows = torch.from_numpy(ring.gather(np.arange(arguments.frames))).reshape(-1, 84 * 84)
    batch, repeats = arguments.batch_size, arguments.repeats
    newest = rng.integers(3, arguments.frames - arguments.n_step, (2 * repeats + 4, 1, batch))
    numbers = np.concatenate([newest, newest + arguments.n_step], axis=1)  # [calls, 2, batch]
    depths = np.full((2, batch), 3, np.uint8)
    indices = torch.from_numpy((numbers[..., None] + np.arange(-3, 1)).reshape(len(numbers), -1))
    ours, theirs = ring.gather(numbers[0], depths), torch.index_select(rows, 0, indices[0])
    assert (ours.reshape(theirs.shape) == theirs.numpy()).all(), "the two sides differ"
    result: dict[str, Any] = alternate(
        {
            "gather": lambda k: ring.gather(numbers[k], depths),
            "torch.index_select": lambda k: torch.index_select(rows, 0, indices[k]),
        },
        repeats,
    )
    medians = [result[name]["median_ms"] for name in ("torch.index_select", "gather")]
    return result | {"speed_ratio": round(medians[0] / medians[1], 2)}


class Game:
    """Breakout played at random, a lost life ending an episode, as blocks of transitions."""

    def __init__(self, n_step: int) -> None:
        from distdqn.config import AtariConfig, EnvConfig
        from distdqn.envs.make import make_stepper

        atari = AtariConfig(terminal_on_life_loss=True)
        self.stepper = make_stepper(EnvConfig("ALE/Breakout-v5", atari=atari), NUM_ENVS)
        self.observation = self.stepper.observation
        self.rng = np.random.default_rng(0)
        self.windows = NStepAccumulator(NUM_ENVS, n_step, 0.99, self.observation, NUM_ACTIONS)
        self.windows.begin(self.stepper.reset(seed=0))
        self.games = self.starts = 0

    def block(self) -> TransitionBlock:
        """One as an env worker seals it: 64 steps of each env whose windows have closed."""
        while self.windows.num_ready < STEPS_PER_ENV * NUM_ENVS:
            actions = self.rng.integers(0, NUM_ACTIONS, NUM_ENVS)
            step = self.stepper.step(actions)
            self.windows.add(actions, step)
            self.games += int(np.count_nonzero(step.ended))
            self.starts += int(np.count_nonzero(step.starts))
        block = self.windows.emit()
        priorities = self.rng.random(block.num_transitions, np.float32)
        return dataclasses.replace(block, priorities=priorities)


def make_replay(capacity: int, n_step: int, compression: str = "none") -> Replay:
    """Planned as a run's shard is."""
    sampler = PrioritizedSampler(capacity, 0.6, 1e-6)
    return Replay(
        *(capacity, PICTURE, NUM_ACTIONS, sampler, 0),
        frames_per_item=planned_frames_per_item(
            capacity, PICTURE.stack, n_step, NUM_ENVS, STEPS_PER_ENV * NUM_ENVS
        ),
        compression=compression,
    )


def pss_bytes() -> dict[str, int]:
    """Of this process: in all, and of that what no file is behind.

    A library that another process has just let go of adds to the first, not to the second.
    """
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return {
        name: 1024 * int(fields[fields.index(f"{field}:") + 1])
        for name, field in (("pss", "Pss"), ("pss of anonymous memory", "Pss_Anon"))
    }


def measure_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Growth of this process's PSS while the replay fills, all else loaded and warm before."""
    game = Game(arguments.n_step)
    warm = make_replay(4_096, arguments.n_step, arguments.compressed)
    for _ in range(10):
        warm.add(game.block())
        warm.sample(1, 32)
    del warm
    num_items, games, starts = arguments.transitions, game.games, game.starts
    before = pss_bytes()
    replay = make_replay(num_items, arguments.n_step, arguments.compressed)
    planned = replay.frames.capacity
    while replay.inserts < num_items:
        replay.add(game.block())
    full = pss_bytes()
    for _ in range(arguments.more_blocks):  # the ring wraps, and must not grow
        replay.add(game.block())
    grown = {"when full": full, "after more blocks": pss_bytes()}
    return {
        "transitions": replay.size,
        "games": game.games - games,
        "lives lost or games begun": game.starts - starts,
        "frames planned": planned,
        "frames at the end": replay.frames.capacity,
        "bytes per transition": {
            when: {name: round((now[name] - before[name]) / num_items, 1) for name in now}
            for when, now in grown.items()
        },
        "counted by nbytes": round(replay.nbytes / num_items, 1),
        "as plain copies": COPIED,
        "valid": replay.check_valid()[0],
    }


def measure_compression(arguments: argparse.Namespace) -> dict[str, Any]:
    """One replay plain and one compressed, with the same blocks."""
    game = Game(arguments.n_step)
    replays = {
        name: make_replay(arguments.transitions, arguments.n_step, name) for name in ("none", "lz4")
    }
    adds: dict[str, list[float]] = {name: [] for name in replays}
    while replays["none"].inserts < arguments.transitions:
        block = game.block()
        for name, replay in replays.items():
            started = time.perf_counter()
            replay.add(block)
            adds[name].append(1e3 * (time.perf_counter() - started))
    calls: dict[str, Callable[..., Any]] = {
        name: lambda _, replay=replay: replay.sample(1, arguments.batch_size)
        for name, replay in replays.items()
    }
    result: dict[str, Any] = alternate(calls, arguments.repeats)
    for name, replay in replays.items():
        result[name]["add_median_ms"] = round(statistics.median(adds[name]), 3)
        result[name]["bytes per transition"] = round(replay.nbytes / replay.size, 1)
    ratio = result["lz4"]["median_ms"] / result["none"]["median_ms"]
    return result | {"time_ratio": round(ratio, 1)}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_mutually_exclusive_group()
    for name in ("memory", "compression"):
        kinds.add_argument(f"--{name}", action="store_true", help=f"measure {name}")
    add = parser.add_argument
    add("--frames", type=int, default=100_000, help="in the ring that is gathered from")
    add("--batch-size", type=int, default=512, help="transitions of a batch")
    add("--n-step", type=int, default=3)
    add("--repeats", type=int, default=100, help="timed calls of each kind")
    add("--transitions", type=int, default=200_000, help="filled in (--memory, --compression)")
    add("--more-blocks", type=int, default=20, help="added to the full replay (--memory)")
    add("--compressed", choices=("none", "lz4"), default="none", help="replay (--memory)")
    add("--json", action="store_true", help="one line of JSON in place of the indented text")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    kinds = {"memory": measure_memory, "compression": measure_compression}
    chosen = next((kind for kind in kinds if getattr(arguments, kind)), "gather")
    measure = kinds.get(chosen, measure_gather)
    result = {"measured": chosen, "n_step": arguments.n_step, **measure(arguments)}
    print(json.dumps(result, indent=None if arguments.json else 2))


if __name__ == "__main__":
    main()
