"""Updates per second of the learner: bare and fed, compiled and eager.

Bare is the update alone, on a minibatch that is on the device. Fed is a replay in this
process: sample, learn, update the priorities, in turn; staged is what of it carries the
observations to the device. The limit of all of them is the bare compiled update; on a GPU
"compiled" means that the update is captured as a graph.

It needs torch, numpy, numba and msgpack alone, so that it can be measured anywhere:

    python -m distdqn.bench.learner --device cuda --batch-size 512 --double --dueling --prioritized
"""

import argparse
import dataclasses
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_origin

import numpy as np
import torch

from distdqn.bench.alone import bare_updates, compile_now
from distdqn.bench.measure import Rates, in_turn, peak_bytes, rate_case, reset_peak
from distdqn.bench.result import Case, Result, new_result, with_values
from distdqn.bench.synthetic import TASKS, Torso, filled_replay
from distdqn.config.sections import LearnerConfig
from distdqn.config.values import field_types, plain_type
from distdqn.errors import ConfigError, DistDQNError
from distdqn.learning.learner import Learner
from distdqn.learning.staging import Staging
from distdqn.networks.q_network import make_network
from distdqn.replay.replay import Replay
from distdqn.types import ReplayBatch

LIMIT = "the bare compiled update"
_LEARNING_RATE = 2.5e-4

Precision = Literal["float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
Mode = Literal["compiled", "eager"]


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
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    devices: tuple[Device, ...] = ("auto",)
    modes: tuple[Mode, ...] = ("compiled", "eager")
    threads: int | None = None
    superbatch: int = 8
    double: bool = False
    dueling: bool = False
    prioritized: bool = True
    n_step: int = 1
    capacity: int = 10_000
    repeats: int = 5
    seconds: float = 0.4


QUICK = Options(
    networks=("mlp", "minatar"), batch_sizes=(32,), precisions=("float32",), repeats=3, seconds=0.2
)


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """One choice of what is varied."""

    network: Torso
    batch: int
    precision: Precision
    device: Device


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures in this process.

    Raises ResourceError where a GPU is asked for and not there.
    """
    cases: list[Case] = []
    notes: dict[str, None] = {}
    for network in options.networks:
        replay = filled_replay(
            TASKS[network], options.capacity, options.prioritized, options.n_step
        )
        for point in plan(options, network):
            say(f"{network}, batch {point.batch}, {point.precision}, {point.device}")
            found, line = _measure(point, replay, options)
            say(f"  {line}")
            if "compiled" in options.modes and not any(case.limit for case in found):
                notes[f"{network}, {point.device}: no limit, {line}"] = None
            cases += found
    return new_result("learner", options, cases, tuple(notes))


def plan(options: Options, network: Torso) -> Iterator[Point]:
    """One setting after the other varied, on each device."""
    first_batch, first_precision = options.batch_sizes[0], options.precisions[0]
    pairs = [(batch, first_precision) for batch in options.batch_sizes]
    pairs += [(first_batch, precision) for precision in options.precisions[1:]]
    present: list[Device] = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    named = [d for one in options.devices for d in (present if one == "auto" else (one,))]
    for device in dict.fromkeys(named):
        for batch, precision in pairs:
            yield Point(network, batch, precision, device)


def _measure(point: Point, replay: Replay, options: Options) -> tuple[list[Case], str]:
    """The cases of one point, and how compiling went."""
    reset_peak(point.device)
    works: dict[str, Callable[[], int]] = {}
    feeds: dict[str, Feed] = {}
    line = "not compiled by --modes"
    for wanted in options.modes:
        learner = make_learner(point, options, cuda_graph=wanted == "compiled")
        Feed(replay, learner, options).superbatch()  # on a GPU it captures the graph
        if wanted == "compiled":
            line = compile_now(learner)
        mode = "compiled" if learner.compiled else "eager"
        feed = feeds[f"fed {mode}"] = Feed(replay, learner, options)
        works[f"update {mode}"] = bare_updates(learner, options.superbatch)
        works[f"fed {mode}"] = feed.superbatch
    works["staged"] = _staged(feed.sample(), learner.device)
    measured = in_turn(works, options.seconds, options.repeats)
    facts = {"threads": learner.num_threads, "parameters": learner.parameters.size}
    shares = {name: feed.shares() for name, feed in feeds.items()}
    return cases_of(point, measured, facts, shares), line


def cases_of(
    point: Point,
    measured: Mapping[str, Rates],
    facts: Mapping[str, Any],
    shares: Mapping[str, Mapping[str, float]],
) -> list[Case]:
    """measured: by kind and mode, "fed compiled"; facts: details of all of them."""
    limit, peak = measured.get("update compiled"), peak_bytes(point.device)
    cases = []
    for name, rates in measured.items():
        kind, _, mode = name.partition(" ")
        settings = dataclasses.asdict(point) | ({"mode": mode} if mode else {})
        unbounded = limit is None or rates is limit or kind == "staged"
        bound = (None, "") if unbounded else (limit, LIMIT)
        own: dict[str, Any] = {"peak_bytes": peak, "details": {**facts, **shares.get(name, {})}}
        cases.append(rate_case(kind, settings, "updates/s", rates, *bound, **own))
    return cases


def make_learner(point: Point, options: Options, cuda_graph: bool) -> Learner:
    """A learner as in training, with the optimizer of Mnih et al. 2015."""
    task = TASKS[point.network]
    torch.manual_seed(0)
    network = make_network(
        task.observation, task.num_actions, torso=point.network, dueling=options.dueling
    )
    settings = LearnerConfig(
        batch_size=point.batch,
        double=options.double,
        target_period=2500,
        optimizer="rmsprop",
        optimizer_eps=0.01 / 32**2,
        rmsprop_decay=0.95,
        rmsprop_centered=True,
        rmsprop_eps_inside_sqrt=True,
        device=point.device,
        precision=point.precision,
        num_threads=options.threads,
    )
    return Learner(network, settings, task.observation, task.num_actions, cuda_graph)


class Feed:
    """A replay that feeds a learner, and the time that each of its steps took."""

    def __init__(self, replay: Replay, learner: Learner, options: Options) -> None:
        self.learner = learner
        self._replay, self._options = replay, options
        self._size = options.superbatch, learner.settings.batch_size
        self._seconds = np.zeros(3)

    def sample(self) -> ReplayBatch:
        return self._replay.sample(*self._size)

    def superbatch(self) -> int:
        """One superbatch from sampling to its priorities; the number of updates."""
        times = [time.perf_counter()]
        batch = self.sample()
        times.append(time.perf_counter())
        update = self.learner.learn(batch, 1.0, self._replay.size, 0.4, _LEARNING_RATE)
        times.append(time.perf_counter())
        if self._options.prioritized:
            self._replay.update_priorities(update)
        times.append(time.perf_counter())
        self._seconds += np.diff(times)
        return self._options.superbatch

    def shares(self) -> dict[str, float]:
        """Of the host's time so far; waiting for a GPU is part of "learn"."""
        shares = self._seconds / self._seconds.sum()
        names = ("sample share", "learn share", "priorities share")
        return dict(zip(names, shares.tolist(), strict=True))


def _staged(batch: ReplayBatch, device: torch.device) -> Callable[[], int]:
    """One superbatch's observations to the device, without an update."""
    staging = Staging(device)
    arrays = [batch.obs_tm1, batch.obs_t]
    dtypes = [torch.from_numpy(np.empty(0, x.dtype)).dtype for x in arrays]

    def work() -> int:
        done = sum(1 for _ in staging.minibatches(arrays, dtypes))
        torch.get_device_module(device).synchronize()
        return done

    return work


_ONE_POINT = Options(
    networks=("nature",), batch_sizes=(32,), precisions=("float32",), modes=("compiled",),
    devices=("cuda" if torch.cuda.is_available() else "cpu",),
    superbatch=16, prioritized=False, capacity=50_000, repeats=7, seconds=2.0,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures one point, or what the flags say, and prints it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m distdqn.bench.learner")
    parser.description = f"{__doc__}\n{inspect.getdoc(Options)}"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for name, annotation in field_types(Options).items():
        kind = plain_type(annotation)[0]
        how: dict[str, Any] = {"nargs": "+"} if get_origin(kind) is tuple else {}
        how = {"action": argparse.BooleanOptionalAction} if kind is bool else how
        how |= {"default": argparse.SUPPRESS, "help": f"default: {getattr(_ONE_POINT, name)}"}
        parser.add_argument(f"--{name.replace('_', '-')}", **how)
    for mode in ("compiled", "eager"):
        how = {"dest": "modes", "default": argparse.SUPPRESS, "action": "store_const"}
        parser.add_argument(f"--{mode}", const=(mode,), **how)
    parser.add_argument("--json", action="store_true", help="machine output only, on stdout")
    wanted = parser.parse_args(arguments)
    try:
        options = with_values(_ONE_POINT, vars(wanted))
    except ConfigError as error:
        parser.error(str(error))
    try:
        result = run(options, _say)
    except DistDQNError as error:
        _say(f"distdqn.bench.learner: error: {error}")
        return 1
    print(json.dumps(result.to_json(), indent=1) if wanted.json else _text(result))
    return 0


def _text(result: Result) -> str:
    lines = []
    for case in result.cases:
        rate, cpu_ms = case.value, 1e3 * (case.cpu_s or 0.0)
        of_limit = f", {case.share.median:.1%} of bare" if case.share else ""
        shares = (f", {name} {x:.0%}" for name, x in case.details.items() if "share" in name)
        lines.append(
            f"{case.label}: {rate.median:.1f} updates/s ({rate.min:.1f} - {rate.max:.1f}), "
            f"CPU {cpu_ms:.2f} ms{of_limit}{''.join(shares)}"
        )
    return "\n".join([*lines, *result.notes])


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
