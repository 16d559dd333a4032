"""Transitions per second of a replay: add, sample, update priorities.

One process does one thing at a time, on a full replay; with shards, as many processes sample at
once, each from its part of the capacity. The limit of adding and sampling is one memcpy of the same
bytes into kept memory, that of updating one write to each node of the sum tree that must change.
What a work reads has been drawn before, and is not the same each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from distdqn.bench.children import Child
from distdqn.bench.measure import cpu_clock_of, in_turn, peak_bytes, rate_case, reset_peak
from distdqn.bench.result import Case, Result, Setting, new_result
from distdqn.bench.synthetic import NUM_ENVS, TASKS, Task, filled_replay, make_block
from distdqn.errors import begun
from distdqn.replay.layout import (
    BUCKET,
    ITEM,
    check_compression,
    num_buckets,
    planned_frames_per_item,
    replay_bytes,
    tree_bytes,
)
from distdqn.types import PriorityUpdate, ReplayBatch, TransitionBlock

Kind = Literal["prioritized", "uniform"]
KINDS: tuple[Kind, ...] = ("prioritized", "uniform")

_DRAWN = 16  # blocks and updates that are made before
_DRAWN_BYTES = 1 << 25  # of such blocks, at most
_TIMEOUT_S = 120.0  # of a shard, beyond the time asked for
_AREA_BYTES = 1 << 26  # beyond the caches of most processors
MEMCPY = "memcpy of the same bytes"
WRITES = "one write to each node that changes"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What is varied: sizes and kinds with each other, all else around the first of each list.

    observations: "cartpole" (four float32) or "pictures" (stacks of four 84x84 bytes).
    sizes: transitions that the replay holds.
    kinds: of sampling, "prioritized" or "uniform".
    batch_sizes: transitions of a minibatch.
    superbatch: minibatches of a sample.
    blocks: transitions of an added block, whole steps of eight envs.
    compressions: of pictures, "none" or "lz4".
    shards: processes that sample at once; 0 for none.
    n_step: steps of a transition.
    max_memory_mb: cases that would need more are left out.
    repeats: repetitions of each measurement.
    seconds: of one repetition.
    """

    observations: tuple[Literal["cartpole", "pictures"], ...] = ("cartpole", "pictures")
    sizes: tuple[int, ...] = (100_000, 10_000, 1_000_000)
    kinds: tuple[Kind, ...] = KINDS
    batch_sizes: tuple[int, ...] = (128, 32, 512)
    superbatch: int = 8
    blocks: tuple[int, ...] = (512, 64)
    compressions: tuple[Literal["none", "lz4"], ...] = ("none",)
    shards: tuple[int, ...] = dataclasses.field(default=(1, 2), metadata={"least": 0})
    n_step: int = 1
    max_memory_mb: int = 2_000
    repeats: int = 5
    seconds: float = 0.1


QUICK = Options(
    sizes=(10_000,), batch_sizes=(128,), blocks=(512,), shards=(2,), repeats=3, seconds=0.05
)


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures in this process, and in those of the shards.

    Raises ConfigError where lz4 is asked for and not installed.
    """
    cases: list[Case] = []
    notes: list[str] = []
    for point, works in _plan(options):
        if (needed := needed_bytes(point)) > 1e6 * options.max_memory_mb:
            left_out = f"left out: {point.text}, {needed / 1e6:,.0f} MB"
            notes.append(f"{left_out}; --max-memory-mb would allow it")
            continue
        check_compression(point.compression, point.task.observation)
        say(f"{point.text}: {', '.join(works)}")
        cases += _measure(point, works, options)
    for observation in options.observations:
        for shards in filter(None, options.shards):
            say(f"{observation}: shards in processes of their own, {shards}")
            cases += _measure_shards(_base(options, observation), shards, options)
    return new_result("replay", options, cases, notes)


def _base(options: Options, observation: str) -> Point:
    return Point(
        observation=observation,
        kind=options.kinds[0],
        size=options.sizes[0],
        batch_size=options.batch_sizes[0],
        superbatch=options.superbatch,
        block=options.blocks[0],
        compression=options.compressions[0] if observation == "pictures" else "none",
        n_step=options.n_step,
    )


def _plan(options: Options) -> Iterator[tuple[Point, tuple[str, ...]]]:
    """What is measured where: points, and the works that differ there from earlier ones."""
    for observation in options.observations:
        base = _base(options, observation)
        for size in options.sizes:
            for kind in options.kinds:
                point = dataclasses.replace(base, size=size, kind=kind)
                yield point, ("add", *_after_adding(kind))
        for batch_size in options.batch_sizes[1:]:
            yield dataclasses.replace(base, batch_size=batch_size), _after_adding(base.kind)
        for block in options.blocks[1:]:
            yield dataclasses.replace(base, block=block), ("add",)
        for compression in options.compressions[1:] if observation == "pictures" else ():
            yield dataclasses.replace(base, compression=compression), ("add", "sample")


def _after_adding(kind: Kind) -> tuple[str, ...]:
    return ("sample", "update") if kind == "prioritized" else ("sample",)


def _measure(point: Point, works: tuple[str, ...], options: Options) -> Iterator[Case]:
    reset_peak()
    work = ReplayWork(point)
    for name in works:
        both = {"work": getattr(work, name), "limit": getattr(work, f"{name}_limit")}
        rates = in_turn(both, options.seconds, options.repeats)
        shown, limit = ("update priorities", WRITES) if name == "update" else (name, MEMCPY)
        told = "transitions/s", rates["work"], rates["limit"], limit
        more: dict[str, Any] = {"details": {"replay_bytes": work.replay.nbytes}}
        more["peak_bytes"] = peak_bytes()
        yield rate_case(shown, _settings(point, name), *told, **more)


def _measure_shards(base: Point, shards: int, options: Options) -> Iterator[Case]:
    point = dataclasses.replace(base, size=max(base.size // shards, 1))
    if shards * needed_bytes(point) > 1e6 * options.max_memory_mb:
        return
    settings = {**_settings(base, "sample"), "shards": shards}
    with begun(), Shards(point, shards) as processes:
        both = {
            "work": lambda: processes.run("sample", options.seconds),
            "limit": lambda: processes.run("sample_limit", options.seconds),
        }
        rates = in_turn(both, options.seconds, options.repeats, cpu_clock_of(processes.pids))
        limit, peak = f"{MEMCPY} by as many processes", processes.peak_bytes()
        told = "transitions/s", rates["work"], rates["limit"], limit
        yield rate_case("sample, shards at once", settings, *told, peak_bytes=peak)


def _settings(point: Point, work: str) -> dict[str, Setting]:
    """Those that make a difference to a work."""
    size: dict[str, Setting] = {"obs": point.observation, "kind": point.kind, "size": point.size}
    batch = {"batch": f"{point.superbatch}x{point.batch_size}"}
    settings = size | ({"block": point.block} if work == "add" else batch)
    if point.observation == "pictures" and work != "update":
        settings["compression"] = point.compression
    return settings


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One choice of what is varied; as in the benchmark's options."""

    observation: str
    kind: Kind
    size: int
    batch_size: int
    superbatch: int
    block: int
    compression: str = "none"
    n_step: int = 1

    @property
    def task(self) -> Task:
        return TASKS["nature" if self.observation == "pictures" else "mlp"]

    @property
    def steps(self) -> int:
        """Of each env in a block."""
        return max(self.block // NUM_ENVS, 1)

    @property
    def text(self) -> str:
        compression = "" if self.compression == "none" else f", {self.compression}"
        return (
            f"{self.observation}, {self.kind}, {self.size:,} transitions, batches of "
            f"{self.batch_size}, blocks of {self.block}{compression}"
        )


class ReplayWork:
    """A full replay, and what is done with it.

    Each of `add`, `sample` and `update` has its `<name>_limit`; all give how many transitions
    they did.
    """

    def __init__(self, point: Point) -> None:
        self._point = point
        self._rng = np.random.default_rng(1)
        prioritized = point.kind == "prioritized"
        self.replay = filled_replay(
            point.task, point.size, prioritized, point.n_step, point.steps, point.compression
        )
        first = self._block()
        num_blocks = int(np.clip(_DRAWN_BYTES // first.frames.nbytes, 1, _DRAWN))
        self._blocks = itertools.cycle([first, *(self._block() for _ in range(num_blocks - 1))])
        added = first.frames.nbytes + first.num_transitions * ITEM.itemsize
        self._added = Copying(added, num_blocks * added, self.replay.nbytes)
        self._sampled = Copying(_nbytes(self._draw()), self.replay.nbytes, 0)
        self._updates = itertools.cycle([self._update() for _ in range(_DRAWN)])
        self._nodes = np.ones(tree_bytes(point.size) // 8)

    def add(self) -> int:
        block = next(self._blocks)
        self.replay.add(block)
        return block.num_transitions

    def add_limit(self) -> int:
        self._added()
        return NUM_ENVS * self._point.steps

    def sample(self) -> int:
        return self._draw().item_ids.size

    def sample_limit(self) -> int:
        self._sampled()
        return self._point.superbatch * self._point.batch_size

    def update(self) -> int:
        """New priorities for a superbatch; ids are of live items, whatever was added since."""
        numbers, priorities, _ = next(self._updates)
        ids = self.replay.inserts - 1 - numbers
        self.replay.update_priorities(PriorityUpdate(ids, priorities))
        return numbers.size

    def update_limit(self) -> int:
        numbers, _, places = next(self._updates)
        self._nodes[places] = 1.0
        return numbers.size

    def _draw(self) -> ReplayBatch:
        return self.replay.sample(self._point.superbatch, self._point.batch_size)

    def _block(self) -> TransitionBlock:
        point = self._point
        prioritized = point.kind == "prioritized"
        return make_block(point.task, point.n_step, prioritized, self._rng, point.steps)

    def _update(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ages of items `[K, B]`, their priorities, and the nodes that change with them."""
        shape = (self._point.superbatch, self._point.batch_size)
        ages = np.sort(self._rng.integers(self._point.size, size=shape), axis=1)[:, ::-1]
        places = changed_nodes(ages.ravel(), self._point.size)
        return ages, self._rng.random(shape, np.float32), places


def changed_nodes(slots: np.ndarray, capacity: int) -> np.ndarray:
    """Places of the values of `slots` and of all nodes above them, each once.

    Node k of the tree is place k, slot s is place 2 * num_buckets + s.
    """
    buckets = num_buckets(capacity)
    levels = [2 * buckets + np.unique(slots)]
    nodes = np.unique(buckets + slots // BUCKET)
    while len(nodes) and nodes[0] >= 1:
        levels.append(nodes)
        nodes = np.unique(nodes // 2)
    return np.concatenate(levels)


def needed_bytes(point: Point) -> int:
    """Of the replay at that point (compressed: as if plain), a sample and its limit."""
    observation = point.task.observation
    frames = planned_frames_per_item(
        point.size, observation.stack, point.n_step, NUM_ENVS, NUM_ENVS * point.steps
    )
    held = replay_bytes(
        point.size, observation, point.task.num_actions, point.kind == "prioritized", frames
    )
    of_one = observation.stack * observation.frame_bytes
    return held + 3 * 2 * point.superbatch * point.batch_size * of_one


class Copying:
    """Copies `num_bytes` from one place to the next, as fast as this machine can.

    Source and target move on through as much memory as the work itself goes through (`source_area`,
    `target_area`, at most 64 MB each), so that both find as much in the caches.
    """

    def __init__(self, num_bytes: int, source_area: int, target_area: int) -> None:
        self._num = num_bytes
        # Not zeros: their pages come only when they are first written, in the midst of a timing.
        self._source = np.ones(_area(num_bytes, source_area), np.uint8)
        self._target = np.ones(_area(num_bytes, target_area), np.uint8)
        self.read_at = self.write_at = 0

    def __call__(self) -> None:
        source = self._source[self.read_at : self.read_at + self._num]
        np.copyto(self._target[self.write_at : self.write_at + self._num], source)
        self.read_at = (self.read_at + self._num) % len(self._source)
        self.write_at = (self.write_at + self._num) % len(self._target)


def _area(of_one: int, area: int) -> int:
    """Whole pieces of `of_one` bytes: at least one."""
    return max(min(area, _AREA_BYTES) // of_one, 1) * of_one


def _nbytes(batch: ReplayBatch) -> int:
    arrays = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return sum(array.nbytes for array in arrays if array is not None)


class Shards:
    """Shards that sample at once, each in a process of its own; left by `with`, which ends them.

    No Ray: what is measured is how far the machine's cores and memory serve several replays,
    not the way to them. Raises RunError where one does not start or does not answer.

    pids: of the processes.
    """

    def __init__(self, point: Point, count: int) -> None:
        self._children = [
            Child("a shard of the benchmark", ReplayWork, point, keep=True) for _ in range(count)
        ]
        self.pids = [child.process.pid or 0 for child in self._children]

    def run(self, work: str, seconds: float) -> int:
        """All do that work for so long, at once; the sum of their transitions."""
        return self._ask(_TIMEOUT_S + seconds, _repeat, work, seconds)

    def peak_bytes(self) -> int:
        """Of all the processes together."""
        return self._ask(_TIMEOUT_S, _peak)

    def _ask(self, timeout_s: float, question: Callable[..., int], *arguments: Any) -> int:
        for child in self._children:
            child.ask(question, *arguments)
        return sum(child.answer(timeout_s) for child in self._children)

    def __enter__(self) -> Shards:
        with contextlib.ExitStack() as stack:
            for child in self._children:
                stack.enter_context(child)
            for child in self._children:
                child.answer(_TIMEOUT_S)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _peak(_: ReplayWork) -> int:
    return peak_bytes()


def _repeat(work: ReplayWork, name: str, seconds: float) -> int:
    call = getattr(work, name)
    ends, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        done += call()
    return done
