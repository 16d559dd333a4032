"""Has distdqn become slower than it was? `make bench-check`.

    make bench-check               compares with the record, exit status 1 where it has
    make bench-check SELFTEST=1    slows down parts by 30 percent and sees that this fails
    make bench-check UPDATE=1      measures a new record (RECORD=FILE: another file)

Absolute times say more about a machine's day than about the code. So each item is measured
in turn with its limit (memory copied, products alone, envs alone) and with a plain reference
implementation that never changes; the two ratios are compared with the committed ones. An
item fails where both have fallen by more than 15 percent, in each of three measurements: a
slowdown of 30 percent is found, one of less than 18 is not.
The record is of one machine: on another one make your own first, the check says how.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from guard import record as records
from guard import slowdown
from guard.learning_items import learning_items
from guard.record import Record, Verdict
from guard.replay_items import replay_items
from guard.turns import Item, OwnTime, Ratios, measure

from distdqn.bench.result import describe_machine
from distdqn.errors import DistDQNError

RECORD = Path(__file__).parent / "results" / "check.json"
ATTEMPTS = 3  # of an item, before it has failed
MEASUREMENTS = 3  # of a record

Measure = Callable[[Sequence[Item]], dict[str, Ratios]]


def check(items: Sequence[Item], measure: Measure, recorded: dict[str, Ratios]) -> list[Verdict]:
    """Measures and compares; what fails is measured again before that counts.

    recorded: by item's name; names without an item fail.
    """
    verdicts = records.compare(measure(items), recorded)
    for _ in range(ATTEMPTS - 1):
        again = [item for item in items if any(v.name == item.name and not v.ok for v in verdicts)]
        again = [item for item in again if item.name in recorded]
        if not again:
            break
        _say(f"measured again, for noise: {', '.join(item.name for item in again)}")
        newer = {v.name: v for v in records.compare(measure(again), recorded) if v.now}
        verdicts = [newer.get(verdict.name, verdict) for verdict in verdicts]
    return verdicts


def new_record(items: Sequence[Item], measure: Measure) -> Record:
    """Medians of several measurements."""
    several = []
    for number in range(1, MEASUREMENTS + 1):
        _say(f"measurement {number} of {MEASUREMENTS}")
        several.append(measure(items))
    return Record(
        created=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        machine=describe_machine(),
        ratios=records.middle_of(several),
        limits={item.name: item.limit_name for item in items},
    )


def table(verdicts: Sequence[Verdict]) -> str:
    """A line for each item: ratio now, in the record, and the change."""
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [
        f"{'':{width}}   share of the limit        times the reference",
        f"{'':{width}}   now    then   change      now    then   change",
    ]
    for verdict in verdicts:
        sides = [
            _side(verdict, "limit", verdict.limit_change),
            _side(verdict, "reference", verdict.reference_change),
        ]
        state = "ok" if verdict.ok else "FAILED"
        words = f" ({verdict.words})" if verdict.words else ""
        lines.append(f"{verdict.name:{width}} {'  '.join(sides)}   {state}{words}")
    return "\n".join(lines)


def _side(verdict: Verdict, side: str, change: float | None) -> str:
    figures = [
        "-" if ratios is None else f"{getattr(ratios, side).median:.3g}"
        for ratios in (verdict.now, verdict.recorded)
    ]
    return f"{figures[0]:>7} {figures[1]:>7} {'-' if change is None else f'{change:+.1%}':>8}"


def run_check(items: Sequence[Item], path: Path, as_json: bool, measure: Measure) -> int:
    recorded, here = records.read(path), describe_machine()
    note = records.other_machine(recorded.machine, here)
    verdicts = check(items, measure, dict(recorded.ratios))
    failed = [verdict.name for verdict in verdicts if not verdict.ok]
    if as_json:
        document = {
            "ok": not failed,
            "tolerance": records.TOLERANCE,
            "note": note,
            "machine": here,
            "items": [dataclasses.asdict(verdict) for verdict in verdicts],
        }
        print(json.dumps(document, indent=1))
    else:
        print(table(verdicts))
        print(f"note: {note}" if note else f"record of {recorded.created}, this machine")
        print(_conclusion(failed))
    return 1 if failed else 0


def _conclusion(failed: Sequence[str]) -> str:
    bound = f"{records.TOLERANCE:.0%}"
    if not failed:
        return f"passed: no item lies more than {bound} below the record in both ratios"
    return (
        f"FAILED: {', '.join(failed)}: both ratios more than {bound} below the record in each of "
        f"{ATTEMPTS} measurements, or no record; where that is meant: make bench-check UPDATE=1"
    )


def run_self_test(items: Sequence[Item], path: Path, as_json: bool, measure: Measure) -> int:
    of_then = records.read(path)
    if note := records.other_machine(of_then.machine, describe_machine()):
        _say(f"note: {note}")
    recorded = dict(of_then.ratios)
    parts = {item.name: item.part for item in items}
    trials = []
    for trial in slowdown.self_test(lambda: check(items, measure, recorded), parts):
        trials.append(trial)
        _say(_trial_line(trial))
    ok = all(trial.ok for trial in trials)
    if as_json:
        print(json.dumps({"ok": ok, "trials": [dataclasses.asdict(t) for t in trials]}, indent=1))
    else:
        print(f"self-test {'passed' if ok else 'FAILED'}: {len(trials)} checks")
    return 0 if ok else 1


def _trial_line(trial: slowdown.Trial) -> str:
    slowed = f"{trial.slowed} slowed by {slowdown.SLOWDOWN:.0%}" if trial.slowed else "no slowdown"
    failed = f"fails: {', '.join(trial.failed)}" if trial.failed else "passes"
    return f"{slowed}: the check {failed}{'' if trial.ok else '   WRONG'}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--selftest", action="store_true", help="with deliberate slowdowns")
    mode.add_argument("--update", action="store_true", help="measure a new record")
    parser.add_argument("--record", type=Path, default=RECORD, help=f"default: {RECORD.name}")
    parser.add_argument("--json", action="store_true", help="machine output only, on stdout")
    return parser.parse_args(arguments)


def run(flags: argparse.Namespace) -> int:
    started = time.monotonic()
    torch.set_num_threads(1)
    if not flags.update:
        records.read(flags.record)  # refused before half a minute's work
    _say("preparing; the updates are compiled where the cache has none of this source")
    items = [*replay_items(), *learning_items()]
    measured: Measure = functools.partial(measure, clock=OwnTime())
    if flags.update:
        made = new_record(items, measured)
        records.write(made, flags.record)
        status, done = 0, f"wrote {flags.record}"
        if unsteady := records.unsteady(made.ratios):
            _say(f"unsteady, better measured again on a quiet machine: {', '.join(unsteady)}")
        document: Any = made.to_json()
        print(json.dumps(document, indent=1) if flags.json else done)
    else:
        do = run_self_test if flags.selftest else run_check
        status = do(items, flags.record, flags.json, measured)
    _say(f"{time.monotonic() - started:.0f} s")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 passed, 1 failed, 2 could not be done."""
    try:
        return run(_arguments(arguments))
    except DistDQNError as error:
        _say(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
