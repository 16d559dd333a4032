"""distdqn's replay beside those of others.

    python benchmarks/compare/replay_buffers.py --venvs DIR
    python benchmarks/compare/replay_buffers.py --venvs DIR --peers rllib

A million of CartPole's transitions, prioritized, batches of 512: adding 1,000 transitions, and
sampling a batch and giving it new priorities. Every side is a process of its own with its own
interpreter (`replay_sides.py`), which times itself on request; the sides take turns, a slot
each, round by round. A slot's figure is the median of its calls. RLlib takes its transitions
as whole episodes, Stable-Baselines3 (which samples uniformly, and updates nothing) as steps of
8 envs. Each peer first tries 1 and 2 threads on a replay of 50,000.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cartpole_sides import HERE, environment
from comparison import (
    Entry,
    PeerError,
    figure,
    keep_output,
    machine_lines,
    markdown,
    ratios,
    short,
    spread,
    stamped,
    write,
)
from environments import python_of

NAME = "replay"
OURS = "distdqn"
PEERS = ("cpprb", "sb3", "rllib", "torchrl")
WORKS = ("add", "sample and update")
_TRIAL_CAPACITY, _TRIAL_SECONDS, _TRIAL_SLOTS = 50_000, 0.3, 3


class Child:
    """One side's process, filled and waiting.

    about: what it printed of itself when it was full.  lines: all its output so far.
    Raises PeerError when it ends before its time.
    """

    def __init__(self, side: str, python: str, capacity: int, threads: int) -> None:
        if not Path(python).exists():
            raise PeerError(f"no environment at {python}: build it first")
        script = [str(HERE / "replay_sides.py"), "--side", side]
        command = [python, *script, "--capacity", str(capacity), "--threads", str(threads)]
        self._process = subprocess.Popen(
            command,
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = [f"$ {' '.join([side, *command[1:]])}\n"]
        self.about = self._answer("{")
        if not capacity - 1_000 <= self.about["items"] <= capacity:
            raise PeerError(f"holds {self.about['items']:,} items, {capacity:,} were wanted")

    def time_us(self, work: str, seconds: float) -> float:
        """Median microseconds of the calls of one slot."""
        assert self._process.stdin is not None
        print(json.dumps({"work": work, "seconds": seconds}), file=self._process.stdin, flush=True)
        return statistics.median(self._answer("["))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self, opening: str) -> Any:
        """The next line that begins so; others are messages of the peer's."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if line.startswith(opening):
                return json.loads(line)
        raise PeerError(f"ended with {self._process.wait()}: {self.lines[-1].strip()}")


def fastest(tried: Mapping[int, Sequence[float]]) -> int:
    """The number of threads with the lowest median."""
    return min(tried, key=lambda threads: statistics.median(tried[threads]))


def try_threads(side: str, python: str) -> dict[int, list[float]]:
    """Microseconds of sampling and updating with 1 and 2 threads, on a small replay."""
    tried = {}
    for threads in (1, 2):
        child = Child(side, python, _TRIAL_CAPACITY, threads)
        child.time_us(WORKS[1], _TRIAL_SECONDS)
        tried[threads] = [child.time_us(WORKS[1], _TRIAL_SECONDS) for _ in range(_TRIAL_SLOTS)]
        child.close()
    return tried


def in_turn(
    children: Mapping[str, Child], rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Microseconds of each side's slots by work, after a slot of each that is not counted.

    Every second round goes backwards, so that none always comes after the same other.
    """
    times: dict[str, dict[str, list[float]]] = {side: {w: [] for w in WORKS} for side in children}
    for number in range(rounds + 1):
        for work in WORKS:
            for side, child in list(children.items())[:: -1 if number % 2 else 1]:
                took = child.time_us(work, seconds)
                if number:
                    times[side][work].append(took)
    return times


def entry(
    times: Mapping[str, Mapping[str, Sequence[float]]], side: str, about: Mapping[str, Any]
) -> Entry:
    """Both sides' microseconds, and how many times as long theirs takes, slot by slot."""
    return {
        "items": about["items"],
        "prioritized": about["prioritized"],
        "versions": about["versions"],
        "ours": {work: figure(times[OURS][work]) for work in WORKS},
        "theirs": {work: figure(times[side][work]) for work in WORKS},
        "ratio": {work: ratios(times[side][work], times[OURS][work]) for work in WORKS},
        "slots": {OURS: times[OURS], side: times[side]},
    }


def measure(options: argparse.Namespace) -> tuple[dict[str, Entry], bool]:
    """The peers' entries; whether all could be measured."""
    children: dict[str, Child] = {}
    tried: dict[str, dict[int, list[float]]] = {}
    whole = True
    try:
        for side in options.peers:
            python = str(python_of(options.venvs.absolute(), side))
            try:
                tried[side] = try_threads(side, python)
                say(f"{side}: {fastest(tried[side])} threads; filling {options.capacity:,}")
                children[side] = Child(side, python, options.capacity, fastest(tried[side]))
            except PeerError as error:
                whole = False
                say(f"{side}: {error}")
        children = {OURS: Child(OURS, sys.executable, options.capacity, 1), **children}
        times = in_turn(children, options.rounds, options.seconds)
    finally:
        for child in children.values():
            child.close()
    places = {
        "VENVS": options.venvs.absolute(),
        "REPOSITORY": Path(__file__).resolve().parents[2],
    }
    entries = {}
    for side in children:
        if side == OURS:
            continue
        text = "".join(children[side].lines)
        entries[side] = stamped(
            {
                **entry(times, side, children[side].about),
                "tried_us": tried[side],
                "threads": fastest(tried[side]),
                "output": keep_output(options.out, NAME, side, text, places),
            }
        )
    return entries, whole


def table(entries: Mapping[str, Entry]) -> str:
    """Markdown: a row for each peer."""
    header = ["peer", "threads"]
    header += [f"{work}: {what}" for work in WORKS for what in ("ours, us", "theirs, us", "ratio")]
    rows = []
    for side, of in entries.items():
        name = side if of["prioritized"] else f"{side} (uniform, samples only)"
        figures = [spread(of[who][work]) for work in WORKS for who in ("ours", "theirs", "ratio")]
        rows.append([name, str(of["threads"]), *figures])
    return (
        "# distdqn's replay beside others\n\n"
        "Microseconds of adding 1,000 transitions, and of sampling 512 and updating their "
        "priorities, in a full replay of CartPole's transitions: medians of slots, with "
        "smallest and largest; ratios, slot by slot, above 1 where distdqn is faster. Written "
        "by `benchmarks/compare/replay_buffers.py`, which says how it measures.\n\n"
        f"{markdown(header, rows)}\n{machine_lines(entries)}"
    )


def draw(axes: Any, entries: Mapping[str, Entry]) -> None:
    """How many times as long each peer takes, on a logarithmic axis."""
    for place, (work, colour) in enumerate(zip(WORKS, ("tab:gray", "tab:blue"), strict=True)):
        times = [of["ratio"][work]["median"] for of in entries.values()]
        rows = [index + 0.4 * place - 0.2 for index in range(len(entries))]
        axes.barh(rows, times, height=0.38, color=colour, label=work)
        for row, ratio in zip(rows, times, strict=True):
            axes.text(ratio, row, f" {short(ratio, 2)}", va="center", fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(entries)), list(entries))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel("times as long as distdqn")
    axes.set_title("Replay: adding 1,000, sampling 512 with new priorities")
    axes.legend(loc="lower right", fontsize=8)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venvs", type=Path, required=True, help="the peers' environments")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER")
    parser.add_argument("--capacity", type=int, default=1_000_000, help="items")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.2, help="of one slot")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    entries, whole = measure(options)
    if entries:
        print(write(options.out, NAME, entries, table, draw), end="")
    sys.exit(not whole)


if __name__ == "__main__":
    main()
