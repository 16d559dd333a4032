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
from distdqn.reporting.stage_costs import Costs, Setup, reached
from distdqn.telemetry.usage import Usage

_MOST_TIMES = 4  # as many parts at once; what comes beyond is to be measured first
_NOTHING_BUSY = 0.65  # of the smallest capacity: the parts wait on the way between them
_BUSY = 0.9  # of the time
_SPARE = 1.2  # fewer workers would do where they keep this much above what is reached
_SMALLER_RATIO = 0.5
_FAR = 1.25  # more of a part is held back by the cores alone
_WORTH = 1.03  # a smaller gain is none

TOO_SHORT = "the run was too short to tell what limits it"
NAMES = {"workers": "workers", "learner": "learner", "shards": "replay shards", "cores": "cores"}
_MORE = {"workers": "workers.count", "shards": "replay.shards"}
_CORES_OF = {"rest": "Ray and all other programs"}
_STAGE_OF = {"learner": "learner", "shards": "replay", "transfer": "transfer"}


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
      "turns" (lockstep), or "" where it is not known.
    bottleneck: as `summary.json` has it: "env", "inference", "replay", "transfer",
      "learner"; "" where it is not known.
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


def unknown(evidence: str = TOO_SHORT) -> Verdict:
    """No verdict."""
    return Verdict("", "", math.nan, {}, {}, {}, (), evidence)


def judge(spent: Usage | None, setup: Setup) -> Verdict:
    """The verdict on a run whose parts work at the same time.

    spent: of a steady window (`UsageWindow.spent`); None: there was none.
    """
    if spent is None or spent.at_s <= 0 or spent.env_steps <= 0 or spent.gradient_steps <= 0:
        return unknown()
    costs, rate = Costs.of(spent), reached(spent, setup)
    capacities = costs.capacities(setup)
    smallest = min(capacities, key=lambda stage: capacities[stage])
    limit = smallest if rate >= _NOTHING_BUSY * capacities[smallest] else "transfer"
    busy, used = _busy(spent), _cores_used(spent)
    return Verdict(
        limit=limit,
        bottleneck=_STAGE_OF.get(limit) or _stage(limit, spent),
        env_steps_per_s=rate,
        capacities=capacities,
        busy=busy,
        cores_used=used,
        changes=_changes(limit, rate, costs, setup, spent.device),
        evidence=f"{_evidence(limit, busy, used, spent)}: {_with_next(limit, rate, capacities)}",
        spare=_spare(limit, rate, capacities, setup),
    )


def judge_turns(busy: Mapping[str, float], env_steps_per_s: float) -> Verdict:
    """The verdict on a lockstep run, whose parts take turns.

    busy: by stage, share of the rounds' time: "env", "inference", "replay", "learner" and
      "transfer"; nan where it is not known.
    """
    shares = {stage: share for stage, share in busy.items() if share > 0}
    if not shares:
        return unknown()
    largest = max(shares, key=lambda stage: shares[stage])
    acting = shares.get("env", 0.0) + shares.get("inference", 0.0)
    longest = max(acting, shares.get("replay", 0.0), shares.get("learner", 0.0), 1e-9)
    gain = max(sum(shares.values()) / longest, 1.0)
    told = ", ".join(f"{stage} {_percent(share)}" for stage, share in shares.items())
    rate = env_steps_per_s * gain
    text = f"mode async lets them overlap (at most {gain:.1f} times as fast, {_rate(rate)})"
    return Verdict(
        limit="turns",
        bottleneck=largest,
        env_steps_per_s=env_steps_per_s,
        capacities={},
        busy=shares,
        cores_used={},
        changes=(Change("mode", "async", rate, gain, text, at_most=True),),
        evidence=f"the parts take turns ({told} percent of the time)",
    )


def _busy(spent: Usage) -> dict[str, float]:
    parts = {"workers": spent.workers, "learner": spent.learner, "shards": spent.shards}
    shares = {n: min(p.work_s / (max(p.count, 1) * spent.at_s), 1.0) for n, p in parts.items()}
    return shares | {"cores": min(spent.cpu_s / (spent.cores * spent.at_s), 1.0)}


def _cores_used(spent: Usage) -> dict[str, float]:
    parts = {"workers": spent.workers, "learner": spent.learner, "shards": spent.shards}
    seconds = {name: part.cpu_s for name, part in parts.items()} | {"rest": spent.rest_cpu_s}
    return {name: max(cpu_s, 0.0) / spent.at_s for name, cpu_s in seconds.items()}


def _stage(limit: str, spent: Usage) -> str:
    """The contract's name where workers, or all cores, are the limit."""
    cpu = {"workers": spent.workers, "learner": spent.learner, "shards": spent.shards}
    part = max(cpu, key=lambda name: cpu[name].cpu_s) if limit == "cores" else "workers"
    acting = "env" if spent.env_s >= spent.inference_s else "inference"
    return acting if part == "workers" else _STAGE_OF[part]


# What would help.


@dataclasses.dataclass(frozen=True, slots=True)
class _Outlook:
    """Predicts: the share of the smallest capacity that is reached stays what it is."""

    rate: float
    costs: Costs
    setup: Setup

    @property
    def share(self) -> float:
        return min(self.rate / min(self.costs.capacities(self.setup).values()), 1.0)

    def change(
        self,
        setting: str,
        value: float | int | str,
        what: str,
        setup: Setup | None = None,
        costs: Costs | None = None,
    ) -> Change:
        """what: the change in words; costs: other ones make the figures bounds."""
        capacities = (costs or self.costs).capacities(setup or self.setup)
        rate = min(capacities.values()) * (1.0 if costs else self.share)
        gain = rate / self.rate
        if not math.isfinite(rate):
            text = f"{what} (nothing else would limit it)"
        elif costs:
            text = f"{what} (at most {_rate(rate)}, {gain:.1f} times)"
        else:
            text = f"{what} ({_rate(rate)} predicted, {gain:.1f} times)"
        return Change(setting, value, rate, gain, text, at_most=costs is not None)

    def more(self, setting: str, name: str, costs: Costs | None = None) -> Change:
        """The smallest number of `name` that moves the limit on to another stage.

        costs: with more cores, which the new ones need.
        """
        capacities = (costs or self.costs).capacities(self.setup)
        now = getattr(self.setup, name)
        others = min(capacity for stage, capacity in capacities.items() if stage != name)
        wanted = others / capacities[name] * now
        number = max(min(math.ceil(min(wanted, 1e9)), _MOST_TIMES * now), now + 1)
        setup = dataclasses.replace(self.setup, **{name: number})
        what = f"{number} {NAMES[name]} for {now}{' with cores for them' if costs else ''}"
        return self.change(setting, number, what, setup, costs)

    def smaller_ratio(self) -> Change:
        ratio = self.setup.samples_per_insert * _SMALLER_RATIO
        setup = dataclasses.replace(self.setup, samples_per_insert=ratio)
        what = f"samples_per_insert {ratio:g} for {self.setup.samples_per_insert:g}"
        return self.change("replay.samples_per_insert", ratio, what, setup)


def _changes(
    limit: str, rate: float, costs: Costs, setup: Setup, device: str
) -> tuple[Change, ...]:
    outlook, found = _Outlook(rate, costs, setup), list[Change]()
    unbound = costs.with_cores(math.inf)
    if limit in _MORE:
        found.append(outlook.more(_MORE[limit], limit))
        if (more := outlook.more(_MORE[limit], limit, unbound)).gain > _FAR * found[0].gain:
            found.append(more)
    if limit == "learner" and device != "cuda":
        gpu = costs.without_learner()
        found.append(outlook.change("learner.device", "cuda", "a GPU", costs=gpu))
    if limit == "cores":
        found.append(outlook.change("", "", "more cores or another node", costs=unbound))
    if limit == "transfer":
        what = "more on the way (workers.max_in_flight, learner.prefetch)"
        found.append(outlook.change("", "", what, costs=costs))
    if limit in ("learner", "shards", "cores"):
        found.append(outlook.smaller_ratio())
    return tuple(change for change in found if change.gain >= _WORTH)


def _spare(limit: str, rate: float, capacities: Mapping[str, float], setup: Setup) -> str:
    """Whether fewer workers would do."""
    if limit in ("workers", "transfer"):
        return ""
    enough = max(math.ceil(_SPARE * rate / capacities["workers"] * setup.workers), 1)
    would = "worker would" if enough == 1 else "workers would"
    return f"{enough} {would} do" if enough < setup.workers else ""


# What a user reads.


def _evidence(
    limit: str, busy: Mapping[str, float], used: Mapping[str, float], spent: Usage
) -> str:
    if limit == "cores":
        told = ", ".join(f"{_CORES_OF.get(name, name)} {n:.1f}" for name, n in used.items())
        return f"the {spent.cores} cores {_percent(busy['cores'])} percent busy ({told})"
    if limit == "transfer":
        told = ", ".join(f"{NAMES[name]} {_percent(share)}" for name, share in busy.items())
        return f"nothing is busy ({told} percent), the parts wait for messages"
    line = f"{NAMES[limit]} {_percent(busy[limit])} percent busy"
    if limit != "workers" or spent.workers.work_s <= 0:
        return line
    shares = (spent.env_s / spent.workers.work_s, spent.inference_s / spent.workers.work_s)
    return f"{line} (env {_percent(shares[0])}, inference {_percent(shares[1])})"


def _with_next(limit: str, rate: float, capacities: Mapping[str, float]) -> str:
    """The rate, and the stage that would be the limit next."""
    others = {stage: value for stage, value in capacities.items() if stage != limit}
    nearest = min(others, key=lambda stage: others[stage])
    if not math.isfinite(others[nearest]):
        return _rate(rate)
    return f"{_rate(rate)}, the {NAMES[nearest]} could do {others[nearest]:,.0f}"


def _rate(env_steps_per_s: float) -> str:
    return f"{env_steps_per_s:,.0f} env steps/s"


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f}"
