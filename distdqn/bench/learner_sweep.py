"""Updates per second of the learner: bare and fed, compiled and eager.

Bare is the update alone, on a minibatch that is on the device. Fed is a replay in this
process: sample, learn, update the priorities, in turn. The limit of all of them is the
bare compiled update; on a GPU "compiled" means that the update is captured as a graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch

from distdqn.bench import learner as single
from distdqn.bench.host import new_result
from distdqn.bench.measure import Rates, in_turn, peak_memory_bytes, rate_case, reset_peak
from distdqn.bench.result import Case, Result, Setting
from distdqn.bench.synthetic import TASKS, Torso, filled_replay
from distdqn.replay.replay import Replay

LIMIT = "the bare compiled update"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What is varied: batch sizes and precisions each around the first of its list.

    networks: "mlp" (CartPole's), "minatar" or "nature" (Atari's).
    batch_sizes: transitions of a minibatch.
    precisions: of the update, "float32" or "bfloat16".
    devices: "cpu", "cuda", or "auto" for all that are present.
    modes: of the update, "compiled" (minutes in all when nothing is cached) or "eager".
    threads: of the CPU; none for those that training would take.
    superbatch: minibatches of a sample.
    double, dueling, prioritized: as in training.
    n_step: steps of a transition.
    capacity: transitions of the replay that feeds.
    repeats: repetitions of each measurement.
    seconds: of one repetition.
    """

    networks: tuple[Torso, ...] = ("mlp", "minatar", "nature")
    batch_sizes: tuple[int, ...] = (32, 128)
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    devices: tuple[Literal["auto", "cpu", "cuda"], ...] = ("auto",)
    modes: tuple[Literal["compiled", "eager"], ...] = ("compiled", "eager")
    threads: int | None = None
    superbatch: int = 8
    double: bool = False
    dueling: bool = False
    prioritized: bool = True
    n_step: int = 1
    capacity: int = 10_000
    repeats: int = 5
    seconds: float = 0.4

    @classmethod
    def quick(cls) -> Options:
        """Fewer, shorter measurements."""
        return cls(
            networks=("mlp", "minatar"),
            batch_sizes=(32,),
            precisions=("float32",),
            repeats=3,
            seconds=0.2,
        )


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures in this process.

    Raises ResourceError where a GPU is asked for and not there.
    """
    cases: list[Case] = []
    notes: dict[str, None] = {}
    for network in options.networks:
        task = TASKS[network]
        replay = filled_replay(task, options.capacity, options.prioritized, options.n_step)
        for one in _plan(options, network):
            say(f"{network}, batch {one.batch_size}, {one.precision}, {one.device}")
            works, details, line = _works(one, options.modes, replay)
            say(f"  {line}")
            measured = in_turn(works, options.seconds, options.repeats)
            if "compiled" in options.modes and "update compiled" not in works:
                notes[f"{network}, {one.device}: no limit, {line}"] = None
            cases += _cases(one, measured, details)
    return new_result("learner", options, cases, tuple(notes))


def _plan(options: Options, network: Torso) -> Iterator[single.Options]:
    """One setting after the other varied, on each device."""
    first_batch, first_precision = options.batch_sizes[0], options.precisions[0]
    pairs = [(batch_size, first_precision) for batch_size in options.batch_sizes]
    pairs += [(first_batch, precision) for precision in options.precisions[1:]]
    names = ("double", "dueling", "prioritized", "n_step", "threads", "superbatch")
    same = {name: getattr(options, name) for name in (*names, "seconds", "repeats", "capacity")}
    for device in _devices(options.devices):
        for batch_size, precision in pairs:
            yield single.Options(
                device=device,
                network=network,
                batch_size=batch_size,
                precision=precision,
                compiled=True,
                json=False,
                **same,
            )


def _devices(wanted: tuple[str, ...]) -> list[str]:
    present = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    named = [device for one in wanted for device in (present if one == "auto" else [one])]
    return list(dict.fromkeys(named))


def _works(
    one: single.Options, modes: tuple[str, ...], replay: Replay
) -> tuple[dict[str, Callable[[], int]], dict[str, Mapping[str, Any]], str]:
    """What is measured in turn, details of each for the result, and how compiling went."""
    reset_peak()
    if one.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    works: dict[str, Callable[[], int]] = {}
    details: dict[str, Mapping[str, Any]] = {}
    line = "not compiled by --modes"
    for mode in modes:
        options = dataclasses.replace(one, compiled=mode == "compiled")
        learner = single.make_learner(TASKS[one.network], options)
        feed = single.Feed(replay, learner, options)
        feed.superbatch()  # on a GPU it captures the graph
        if mode == "compiled":
            line = single.compile_update(learner)
            if not learner.compiled:
                continue
        facts = {"threads": learner.num_threads, "parameters": learner.parameters.size}
        for name, work in (
            (f"update {mode}", single.bare_update(learner, options)),
            (f"fed {mode}", feed.superbatch),
        ):
            works[name], details[name] = work, facts
    return works, details, line


def _cases(
    one: single.Options, measured: Mapping[str, Rates], details: Mapping[str, Mapping[str, Any]]
) -> Iterator[Case]:
    settings: dict[str, Setting] = {
        "network": one.network,
        "batch": one.batch_size,
        "precision": one.precision,
        "device": one.device,
    }
    limit = measured.get("update compiled")
    peak = peak_memory_bytes(one.device)
    for name, rates in measured.items():
        kind, _, mode = name.partition(" ")
        bounded = limit is not None and rates is not limit
        yield rate_case(
            kind,
            {**settings, "mode": mode},
            "updates/s",
            rates,
            limit if bounded else None,
            LIMIT if bounded else "",
            peak_bytes=peak["device"] or peak["host"],
            details=details[name],
        )
