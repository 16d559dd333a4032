"""Which stage limits a run, how that is known, and what would help.

Each stage has a capacity, the env steps a second that it could do if it never waited;
the smallest is the limit. After a change a run is expected to reach the same share of
the then smallest capacity as it reached before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from distdqn.plain_json import plain
from distdqn.telemetry.usage import MIN_WINDOW_S, PartUsage, Usage

_MOST_TIMES = 4  # as many parts at once; what comes beyond is to be measured first
_NOTHING_BUSY = 0.65  # of the smallest capacity: the parts wait on the way between them
_SPARE = 1.2  # fewer workers would do where they keep this much above what is reached
_SMALLER_RATIO = 0.5
_FAR = 1.25  # more of a part is held back by the cores alone
_WORTH = 1.03  # a smaller gain is none
_LEAST_CORES = 0.05  # left to the run where others seem to take all

TOO_SHORT = "the run was too short to tell what limits it"
NAMES = {"workers": "workers", "learner": "learner", "shards": "replay shards", "cores": "cores"}
_MORE = {"workers": "workers.count", "shards": "replay.shards"}
_STAGE_OF = {"learner": "learner", "shards": "replay", "transfer": "transfer"}


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """How a run is configured.

    workers, shards: how many work at once.  batch_size: transitions in one update.
    samples_per_insert: transitions sampled per one inserted.
    in_turns: whether workers, shards and learner wait for each other (lockstep).
    """

    workers: int
    shards: int
    batch_size: int
    samples_per_insert: float
    in_turns: bool = False

    @property
    def updates_per_env_step(self) -> float:
        return self.samples_per_insert / self.batch_size


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What could be changed, and what the run is expected to reach then.

    setting, value: of the configuration; "" where it is not one setting.
    env_steps_per_s, gain: predicted, and how many times what was measured.
    at_most: whether these are bounds, because the speed of what is new is not known.
    """

    setting: str
    value: float | int | str
    env_steps_per_s: float
    gain: float
    text: str
    at_most: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What limits a run.

    limit: "workers", "learner", "shards", "cores" (all are busy), "transfer" (none is),
      "turns" (lockstep), or "" where the run was too short to be sure.
    bottleneck: as `summary.json` has it: "env", "inference", "replay", "transfer", "learner".
    env_steps_per_s: measured.  capacities: by stage, in env steps per second.
    busy: by stage, share of the time in which it works; of all cores, share in use.
    cores_used: by stage, and "rest": everything else on the machine, other programs too.
    changes: what would help, the best first; "samples_per_insert" changes what is learned.
    evidence, spare: for the user; spare: what could be taken away, or "".
    """

    limit: str
    bottleneck: str
    env_steps_per_s: float
    capacities: Mapping[str, float]
    busy: Mapping[str, float]
    cores_used: Mapping[str, float]
    changes: tuple[Change, ...]
    evidence: str
    spare: str = ""

    def line(self) -> str:
        """For the user: the evidence, what would help, what could be taken away."""
        advice = " or ".join(change.text for change in self.changes)
        return "; ".join(filter(None, (self.evidence, self.spare, advice)))

    def to_json(self) -> dict[str, Any]:
        """As plain values; what is unknown or without bound is None."""
        return plain(dataclasses.asdict(self)) | {"line": self.line()}


def judge(spent: Usage, setup: Setup) -> Verdict:
    """The verdict on what was `spent` in a steady window, or in all of a short run."""
    found, rate = capacities(spent, setup), reached(spent, setup)
    limit = min(found, key=lambda stage: found[stage])
    if not setup.in_turns and not rate >= _NOTHING_BUSY * found[limit]:
        limit = "transfer"
    told = Verdict(
        limit=limit,
        bottleneck=_stage(limit, spent),
        env_steps_per_s=rate,
        capacities=found,
        busy=_busy(spent),
        cores_used=_cores_used(spent),
        changes=_changes(limit, _Outlook(spent, setup, rate)),
        evidence="",
        spare=_spare(limit, rate, found, setup),
    )
    long_enough = setup.in_turns or spent.at_s >= MIN_WINDOW_S
    if not (long_enough and spent.env_steps > 0 and spent.gradient_steps > 0):
        return dataclasses.replace(told, limit="", changes=(), evidence=TOO_SHORT, spare="")
    return dataclasses.replace(told, evidence=f"{_evidence(told, spent)}: {_with_next(told)}")


def capacities(spent: Usage, setup: Setup) -> dict[str, float]:
    """Env steps per second that each stage could do if it never waited; inf: no cost.

    Costs hold per unit of each stage's own work (a worker's per env step, the learner's per
    update, a shard's per both), so they stay right where one is ahead of the other within
    the band, and they say what another number of parts or another ratio would do.
    """
    with_env_steps = {"workers": 1.0, "learner": 0.0}
    with_env_steps["shards"] = _ratio(spent.adding_s, spent.replay_s)

    def cost(kind: str, seconds: float) -> float:
        """Seconds for an env step and the updates that belong to it."""
        share = with_env_steps[kind]
        of_update = _ratio((1.0 - share) * seconds, spent.gradient_steps)
        return _ratio(share * seconds, spent.env_steps) + of_update * setup.updates_per_env_step

    at_once = {"workers": setup.workers, "learner": 1, "shards": setup.shards}
    kinds = spent.kinds.items()
    found = {name: _per(at_once[name], cost(name, kind.running_s)) for name, kind in kinds}
    if setup.in_turns:
        return {"turns": _per(1, sum(1.0 / capacity for capacity in found.values())), **found}
    free_cores = max(spent.cores - _ratio(spent.rest_cpu_s, spent.at_s), _LEAST_CORES)
    return found | {"cores": _per(free_cores, sum(cost(name, kind.cpu_s) for name, kind in kinds))}


def reached(spent: Usage, setup: Setup) -> float:
    """Env steps per second, the updates that belong to them made.

    Either side may be ahead of the other by the band of the ratio, at the start of a run
    above all; the one behind tells.
    """
    by_updates = spent.gradient_steps / setup.updates_per_env_step
    return _ratio(min(spent.env_steps, by_updates or spent.env_steps), spent.at_s)


def _stage(limit: str, spent: Usage) -> str:
    """The contract's name of a limit; of all cores, or of turns, what takes most of them."""
    if limit == "turns":
        shares = _turns(spent)
        return max(shares, key=lambda stage: shares[stage])
    if limit == "cores":
        limit = max(spent.kinds, key=lambda name: spent.kinds[name].cpu_s)
    acting = "env" if spent.env_s >= spent.inference_s else "inference"
    return _STAGE_OF.get(limit, acting)


def _turns(spent: Usage) -> dict[str, float]:
    """Shares of the time of parts that take turns."""
    workers = max(spent.workers.count, 1)
    seconds = {"env": spent.env_s / workers, "inference": spent.inference_s / workers}
    seconds |= {"replay": spent.shards.work_s, "learner": spent.learner.work_s}
    shares = {stage: _ratio(taken_s, spent.at_s) for stage, taken_s in seconds.items()}
    return shares | {"transfer": max(1.0 - sum(shares.values()), 0.0)}


def _busy(spent: Usage) -> dict[str, float]:
    shares = {n: _ratio(k.work_s, max(k.count, 1) * spent.at_s) for n, k in spent.kinds.items()}
    shares["cores"] = _ratio(spent.cpu_s, spent.cores * spent.at_s)
    return {name: min(share, 1.0) for name, share in shares.items()}


def _cores_used(spent: Usage) -> dict[str, float]:
    seconds = {name: kind.cpu_s for name, kind in spent.kinds.items()} | {"rest": spent.rest_cpu_s}
    return {name: _ratio(max(cpu_s, 0.0), spent.at_s) for name, cpu_s in seconds.items()}


def _spare(limit: str, rate: float, found: Mapping[str, float], setup: Setup) -> str:
    """Whether fewer workers would do."""
    if limit in ("workers", "transfer", "turns"):
        return ""
    enough = max(math.ceil(_SPARE * rate / found["workers"] * setup.workers), 1)
    would = "worker would" if enough == 1 else "workers would"
    return f"{enough} {would} do" if enough < setup.workers else ""


# What would help.


@dataclasses.dataclass(frozen=True, slots=True)
class _Outlook:
    """Predicts: the share of the smallest capacity that is reached stays what it is."""

    spent: Usage
    setup: Setup
    rate: float

    def change(
        self,
        what: str,
        setting: str = "",
        value: float | int | str = "",
        bound: Usage | None = None,
        **setup: Any,
    ) -> Change:
        """what: the change in words.  setup: what it changes there.

        bound: what would be spent then, which makes the figures bounds.
        """
        now = min(capacities(self.spent, self.setup).values())
        changed = dataclasses.replace(self.setup, **setup)
        rate = min(capacities(bound or self.spent, changed).values())
        rate *= 1.0 if bound else min(_ratio(self.rate, now), 1.0)
        gain = _ratio(rate, self.rate)
        told = f"{_rate(rate)} predicted, {gain:.1f} times"
        if not math.isfinite(rate):
            told = "nothing else would limit it"
        elif bound:
            told = f"at most {_rate(rate)}, {gain:.1f} times"
        return Change(setting, value, rate, gain, f"{what} ({told})", at_most=bound is not None)

    def more(self, kind: str, bound: Usage | None = None) -> Change:
        """The smallest number of a kind that moves the limit on to another stage.

        bound: with more cores, which the new ones need.
        """
        found, now = capacities(bound or self.spent, self.setup), getattr(self.setup, kind)
        others = min(capacity for stage, capacity in found.items() if stage != kind)
        wanted = math.ceil(min(others / found[kind] * now, 1e9))
        number = max(min(wanted, _MOST_TIMES * now), now + 1)
        what = f"{number} {NAMES[kind]} for {now}{' with cores for them' if bound else ''}"
        return self.change(what, _MORE[kind], number, bound, **{kind: number})

    def smaller_ratio(self) -> Change:
        ratio, now = self.setup.samples_per_insert * _SMALLER_RATIO, self.setup.samples_per_insert
        what = f"samples_per_insert {ratio:g} for {now:g}"
        return self.change(what, "replay.samples_per_insert", ratio, samples_per_insert=ratio)


def _changes(limit: str, outlook: _Outlook) -> tuple[Change, ...]:
    spent, found = outlook.spent, list[Change]()
    endless = dataclasses.replace(spent, cores=math.inf)
    if limit in _MORE:
        found.append(outlook.more(limit))
        if (more := outlook.more(limit, endless)).gain > _FAR * found[0].gain:
            found.append(more)
    if limit == "learner" and spent.device != "cuda":
        gpu = dataclasses.replace(spent, learner=PartUsage())
        found.append(outlook.change("a GPU", "learner.device", "cuda", gpu))
    if limit == "cores":
        found.append(outlook.change("more cores or another node", bound=endless))
    if limit == "transfer":
        what = "more on the way (workers.max_in_flight, learner.prefetch)"
        found.append(outlook.change(what, bound=spent))
    if limit == "turns":
        what = "mode async lets them overlap"
        found.append(outlook.change(what, "mode", "async", endless, in_turns=False))
    if limit in ("learner", "shards", "cores"):
        found.append(outlook.smaller_ratio())
    return tuple(change for change in found if change.gain >= _WORTH)


# What a user reads.


def _evidence(told: Verdict, spent: Usage) -> str:
    if told.limit == "turns":
        return f"the parts take turns ({_percents(_turns(spent))} percent of the time)"
    if told.limit == "cores":
        used = {"Ray and all other programs" if n == "rest" else n: c for n, c in
                told.cores_used.items()}  # fmt: skip
        each = ", ".join(f"{name} {cores:.1f}" for name, cores in used.items())
        return f"the {spent.cores:g} cores {_percent(told.busy['cores'])} percent busy ({each})"
    if told.limit == "transfer":
        each = _percents({NAMES[name]: share for name, share in told.busy.items()})
        return f"nothing is busy ({each} percent), the parts wait for messages"
    line = f"{NAMES[told.limit]} {_percent(told.busy[told.limit])} percent busy"
    if told.limit != "workers":
        return line
    seconds = {"env": spent.env_s, "inference": spent.inference_s}
    shares = {stage: _ratio(taken_s, spent.workers.work_s) for stage, taken_s in seconds.items()}
    return f"{line} ({_percents(shares)})"


def _with_next(told: Verdict) -> str:
    """The rate, and the stage that would be the limit next."""
    others = {name: value for name, value in told.capacities.items() if name != told.limit}
    nearest = min(others, key=lambda stage: others[stage])
    if told.limit == "turns" or not math.isfinite(others[nearest]):
        return _rate(told.env_steps_per_s)
    return f"{_rate(told.env_steps_per_s)}, the {NAMES[nearest]} could do {others[nearest]:,.0f}"


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f}"


def _rate(env_steps_per_s: float) -> str:
    return f"{env_steps_per_s:,.0f} env steps/s"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _per(parts: float, cost_s: float) -> float:
    return parts / cost_s if cost_s > 0 else math.inf
