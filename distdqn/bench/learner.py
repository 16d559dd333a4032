"""Updates per second of the learner, bare and fed from a replay.

    python -m distdqn.bench.learner --device cuda --batch-size 512 --double --dueling --prioritized

Bare is the update alone, on a minibatch that is on the device: what feeding can reach at
most. Fed is a replay in this process: sample, learn, update the priorities, in turn. It
needs torch, numpy, numba and msgpack alone, so that it can be measured anywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch

from distdqn.bench.host import describe_machine
from distdqn.bench.measure import Rates, measure, peak_memory_bytes
from distdqn.bench.synthetic import TASKS, Task, Torso, filled_replay
from distdqn.config.sections import LearnerConfig
from distdqn.errors import DistDQNError
from distdqn.learning.compilation import CompiledCache, compile_in_background
from distdqn.learning.learner import Learner
from distdqn.learning.staging import Staging
from distdqn.machine.cpu_threads import cpu_threads
from distdqn.networks.q_network import make_network
from distdqn.replay.replay import Replay
from distdqn.types import ReplayBatch

_LEARNING_RATE = 2.5e-4
_COMPILE_TIMEOUT_S = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The flags, by their names."""

    device: Literal["auto", "cpu", "cuda"]
    network: Torso
    batch_size: int
    precision: Literal["float32", "bfloat16"]
    double: bool
    dueling: bool
    prioritized: bool
    n_step: int
    threads: int | None
    compiled: bool
    superbatch: int
    seconds: float
    repeats: int
    capacity: int
    json: bool


def parse(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m distdqn.bench.learner", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--network", choices=tuple(TASKS), default="nature")
    parser.add_argument("--batch-size", type=_positive, default=32)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    for name in ("double", "dueling", "prioritized"):
        parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--n-step", type=_positive, default=1)
    parser.add_argument("--threads", type=_positive, help="of the CPU; default as in training")
    compiled = parser.add_mutually_exclusive_group()
    compiled.add_argument("--compiled", dest="compiled", action="store_true", default=True)
    compiled.add_argument("--eager", dest="compiled", action="store_false")
    parser.add_argument("--superbatch", type=_positive, default=16)
    parser.add_argument("--seconds", type=_seconds, default=2.0, help="of a repetition")
    parser.add_argument("--repeats", type=_positive, default=7)
    parser.add_argument("--capacity", type=_positive, default=50_000)
    parser.add_argument("--json", action="store_true", help="machine output only, on stdout")
    return Options(**vars(parser.parse_args(arguments)))


def run(options: Options) -> dict[str, Any]:
    """Measures; returns what `--json` prints."""
    task = TASKS[options.network]
    learner = make_learner(task, options)
    replay = filled_replay(task, options.capacity, options.prioritized, options.n_step)
    feed = Feed(replay, learner, options)
    feed.superbatch()  # on a GPU it captures the graph
    note = compile_update(learner) if options.compiled else "eager by --eager"
    repeated = (options.seconds, options.repeats)
    bare = measure(bare_update(learner, options), *repeated)
    staged = measure(_staged(feed.sample(), learner.device), *repeated)
    feed.reset()
    fed = measure(feed.superbatch, *repeated)
    return {
        "benchmark": "learner",
        "machine": describe_machine(learner.device),
        "options": dataclasses.asdict(options),
        "device": str(learner.device),
        "threads": learner.num_threads,
        "compiled": learner.compiled,
        "note": note,
        "parameters": learner.parameters.size,
        "bare": _figures(bare, options),
        "staged": _figures(staged, options),
        "fed": _figures(fed, options) | {"shares": feed.shares()},
        "fed_to_bare": float(np.median(fed.per_s) / np.median(bare.per_s)),
        "peak_memory_bytes": peak_memory_bytes(learner.device),
        "replay_bytes": replay.nbytes,
    }


def make_learner(task: Task, options: Options) -> Learner:
    """A learner as in training, with the optimizer of Mnih et al. 2015."""
    torch.manual_seed(0)
    network = make_network(
        task.observation, task.num_actions, torso=options.network, dueling=options.dueling
    )
    settings = LearnerConfig(
        batch_size=options.batch_size,
        double=options.double,
        target_period=2500,
        optimizer="rmsprop",
        optimizer_eps=0.01 / 32**2,
        rmsprop_decay=0.95,
        rmsprop_centered=True,
        rmsprop_eps_inside_sqrt=True,
        device=options.device,
        precision=options.precision,
        num_threads=options.threads,
    )
    sizes = (task.observation, task.num_actions)
    return Learner(network, settings, *sizes, cuda_graph=options.compiled)


class Feed:
    """A replay that feeds a learner, and the time that each of its steps took."""

    def __init__(self, replay: Replay, learner: Learner, options: Options) -> None:
        self._replay, self._learner, self._options = replay, learner, options
        self.reset()

    def reset(self) -> None:
        """Forgets the times so far."""
        self._seconds = {"sample": 0.0, "learn": 0.0, "priorities": 0.0}

    def sample(self) -> ReplayBatch:
        return self._replay.sample(self._options.superbatch, self._options.batch_size)

    def superbatch(self) -> int:
        """One superbatch from sampling to its priorities; the number of updates."""
        times = [time.perf_counter()]
        batch = self.sample()
        times.append(time.perf_counter())
        update = self._learner.learn(batch, 1.0, self._replay.size, 0.4, _LEARNING_RATE)
        times.append(time.perf_counter())
        if self._options.prioritized:
            self._replay.update_priorities(update)
        times.append(time.perf_counter())
        for name, seconds in zip(self._seconds, np.diff(times), strict=True):
            self._seconds[name] += float(seconds)
        return self._options.superbatch

    def shares(self) -> dict[str, float]:
        """Of the host's time since `reset`; waiting for a GPU is part of "learn"."""
        total = sum(self._seconds.values())
        return {name: seconds / total for name, seconds in self._seconds.items()}


def compile_update(learner: Learner) -> str:
    """Puts the compiled update in place and says in a line how that went."""
    if learner.device.type == "cuda":
        return learner.swap_refused or "captured as a CUDA graph"
    with cpu_threads(learner.num_threads):
        compiling = compile_in_background(
            learner.build_update, learner.example_arguments(), CompiledCache(), nice=0
        )
    deadline = time.monotonic() + _COMPILE_TIMEOUT_S
    while compiling.state == "compiling" and time.monotonic() < deadline:
        time.sleep(0.05)
    function = compiling.poll()
    if function is None:
        compiling.cancel()
        return compiling.reason
    if not learner.swap(function):
        return learner.swap_refused
    return f"compiled in {compiling.seconds:.1f} s ({compiling.state})"


def bare_update(learner: Learner, options: Options) -> Callable[[], int]:
    """As many updates as in a superbatch, always on one minibatch."""
    arguments, minibatch = learner.example_arguments(), learner.example_minibatch()

    def work() -> int:
        update = learner.update_of(minibatch)
        with cpu_threads(learner.num_threads):
            for _ in range(options.superbatch):
                update(*arguments)
        torch.get_device_module(learner.device).synchronize()
        return options.superbatch

    return work


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


def _figures(rates: Rates, options: Options) -> dict[str, Any]:
    return {
        "updates_per_s": rates.summary(),
        "transitions_per_s": rates.summary(options.batch_size),
        "cpu_s_per_update": rates.cpu_s,
    }


def _text(result: dict[str, Any]) -> str:
    options, host = result["options"], result["machine"]
    names = [name for name in ("double", "dueling", "prioritized") if options[name]]
    what = [options["network"], f"batch {options['batch_size']}", options["precision"], *names]
    memory = result["peak_memory_bytes"]
    lines = [
        f"{', '.join(what)}; {result['parameters']:,} parameters; {result['note']}",
        f"{host['gpu'] or host['cpu']}, {result['threads']} threads, torch {host['torch']}",
        "            updates/s    (min - max)          transitions/s  CPU ms/update",
    ]
    for kind in ("bare", "staged", "fed"):
        figures = result[kind]
        rate, per_s = figures["updates_per_s"], figures["transitions_per_s"]["median"]
        spread = f"({rate['min']:.1f} - {rate['max']:.1f})"
        cpu_ms = 1e3 * figures["cpu_s_per_update"]
        lines.append(
            f"{kind:<9}{rate['median']:>12.1f}    {spread:<20}{per_s:>14,.0f}{cpu_ms:>15.2f}"
        )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in result["fed"]["shares"].items())
    on_device = "" if memory["device"] is None else f", GPU {memory['device'] / 2**20:,.0f} MiB"
    lines += [
        f"fed reaches {result['fed_to_bare']:.1%} of bare; host time fed: {shares}",
        f"peak memory {memory['host'] / 2**20:,.0f} MiB{on_device}",
    ]
    return "\n".join(lines)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the flags, measures, prints; returns the exit status."""
    options = parse(arguments)
    try:
        result = run(options)
    except DistDQNError as error:
        print(f"distdqn.bench.learner: error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result, indent=1) if options.json else _text(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
