"""Transitions per second of a replay: add, sample, update priorities.

One process does one thing at a time, on a full replay; with shards, as many processes
sample at once, each from its part of the capacity. The limit of adding and sampling is
one memcpy of the same bytes into kept memory, that of updating one write to each node of
the sum tree that must change.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal

from distdqn.bench.host import new_result
from distdqn.bench.measure import (
    cpu_clock_of,
    in_turn,
    peak_bytes,
    rate_case,
    reset_peak,
)
from distdqn.bench.replay_work import KINDS, Kind, Point, ReplayWork, needed_bytes
from distdqn.bench.result import Case, Result, Setting
from distdqn.replay.layout import check_compression

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
            notes.append(
                f"left out: {point.text}, {needed / 1e6:,.0f} MB; --max-memory-mb would allow it"
            )
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
                updates = ("update",) if kind == "prioritized" else ()
                yield dataclasses.replace(base, size=size, kind=kind), ("add", "sample", *updates)
        updates = ("update",) if base.kind == "prioritized" else ()
        for batch_size in options.batch_sizes[1:]:
            yield dataclasses.replace(base, batch_size=batch_size), ("sample", *updates)
        for block in options.blocks[1:]:
            yield dataclasses.replace(base, block=block), ("add",)
        if observation == "pictures":
            for compression in options.compressions[1:]:
                yield dataclasses.replace(base, compression=compression), ("add", "sample")


def _measure(point: Point, works: tuple[str, ...], options: Options) -> Iterator[Case]:
    reset_peak()
    work = ReplayWork(point)
    for name in works:
        measured = in_turn(
            {"work": getattr(work, name), "limit": getattr(work, f"{name}_limit")},
            options.seconds,
            options.repeats,
        )
        yield rate_case(
            "update priorities" if name == "update" else name,
            _settings(point, name),
            "transitions/s",
            measured["work"],
            measured["limit"],
            WRITES if name == "update" else MEMCPY,
            peak_bytes=peak_bytes(),
            details={"replay_bytes": work.replay.nbytes},
        )


def _measure_shards(base: Point, shards: int, options: Options) -> Iterator[Case]:
    from distdqn.bench.replay_shards import Shards

    point = dataclasses.replace(base, size=max(base.size // shards, 1))
    if shards * needed_bytes(point) > 1e6 * options.max_memory_mb:
        return
    with Shards(point, shards) as processes:
        measured = in_turn(
            {
                "work": lambda: processes.run("sample", options.seconds),
                "limit": lambda: processes.run("sample_limit", options.seconds),
            },
            options.seconds,
            options.repeats,
            cpu_clock_of(processes.pids),
        )
        yield rate_case(
            "sample, shards at once",
            {**_settings(base, "sample"), "shards": shards},
            "transitions/s",
            measured["work"],
            measured["limit"],
            f"{MEMCPY} by as many processes",
            peak_bytes=processes.peak_bytes(),
        )


def _settings(point: Point, work: str) -> dict[str, Setting]:
    """Those that make a difference to a work."""
    settings: dict[str, Setting] = {"obs": point.observation, "kind": point.kind}
    settings["size"] = point.size
    if work == "add":
        settings["block"] = point.block
    else:
        settings["batch"] = f"{point.superbatch}x{point.batch_size}"
    if point.observation == "pictures" and work != "update":
        settings["compression"] = point.compression
    return settings
