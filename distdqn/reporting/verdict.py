"""Which stage limits a run, how that is known, and what would help.

Each stage has a capacity, the env steps a second that it could do if it never waited;
the smallest is the limit. After a change a run is expected to reach the same share of
the then smallest capacity as it reached before.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from distdqn.plain_json import plain
from distdqn.telemetry.usage import MIN_WINDOW_S, Spent, Usage

_MOST_TIMES = 4  # as many parts at once; what comes beyond is to be measured first
_NOTHING_BUSY = 0.65  # of the smallest capacity: the parts wait on the way between them
_BUSY = 0.9  # of its time: no way between them is to blame
_AWAY, _AWAY_S = 0.2, 1.0  # share and seconds of their time: parts are missed; reports lag
_SPARE = 1.2  # fewer workers would do where they keep this much above what is reached
_SMALLER_RATIO = 0.5
_FAR = 1.25  # more of a part is held back by the cores alone
_WORTH = 1.03  # a smaller gain is none
_LEAST_CORES = 0.05  # left to the run where others seem to take all

NAMES = {"workers": "workers", "learner": "learner", "shards": "replay shards", "cores": "cores"}
_SETTINGS = {  # fields of `Setup` that a change may raise or lower
    "workers": "workers.count",
    "shards": "replay.shards",
    "samples_per_insert": "replay.samples_per_insert",
}
_BOTTLENECKS = {"learner": "learner", "shards": "replay", "transfer": "transfer"}


@dataclasses.dataclass(frozen=True, slots=True)
class Setup:
    """How a run is configured.

    workers, shards: how many work at once.  batch_size: transitions in one update.
    samples_per_insert: transitions sampled per one inserted.
    in_turns: whether workers, shards and learner wait for each other (lockstep).
    restarts: parts that were replaced in the run.
    """

    workers: int
    shards: int
    batch_size: int
    samples_per_insert: float
    in_turns: bool = False
    restarts: int = 0

    @property
    def updates_per_env_step(self) -> float:
        return self.samples_per_insert / self.batch_size


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What could be changed, and what the run is expected to reach then.

    setting, value: of the configuration; "" where it is not one setting.
    env_steps_per_s, gain: predicted, and how many times what was measured; `at_most` that
      much where the speed of what is new is not known; nan where no bound is.
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

    limit: "workers", "learner", "shards", "cores" (all are busy), "absence" (parts are
      missed), "transfer" (nothing is busy), "turns" (lockstep), or "" where the run was too
      short to be sure.
    bottleneck: as `summary.json` has it: "env", "inference", "replay", "transfer", "learner".
    env_steps_per_s: measured.
    capacities: by stage, in env steps per second; none where parts were missed.
    busy: by stage, share of the time in which it works; of all cores, share in use. Of
      parts that take turns by bottleneck, "env" to "learner"; they add up to 1.
    cores_used: by stage, and "rest": everything else on the machine, other programs too;
      empty where parts take turns.
    changes: what would help, the best first; "samples_per_insert" changes what is learned.
    evidence, spare: for the user; what could be taken away, or "".
    """

    limit: str
    bottleneck: str
    env_steps_per_s: float
    capacities: Mapping[str, float]
    busy: Mapping[str, float]
    cores_used: Mapping[str, float]
    changes: tuple[Change, ...] = ()
    evidence: str = ""
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
    found, rate, shortest_s = capacities(spent, setup), reached(spent, setup), MIN_WINDOW_S
    busy = {name: kind.busy(spent.at_s) for name, kind in spent.kinds.items()}
    busy["cores"] = min(_ratio(spent.cpu_s, spent.cores * spent.at_s), 1.0)
    limit = min(found, key=found.__getitem__)
    if rate < _NOTHING_BUSY * found[limit]:
        limit = _idle(busy, bool(_missed(spent, setup)))
    cpu_s = {name: kind.cpu_s for name, kind in spent.kinds.items()} | {"rest": spent.rest_cpu_s}
    used = {name: _ratio(max(seconds, 0.0), spent.at_s) for name, seconds in cpu_s.items()}
    if setup.in_turns:
        limit, busy, used, shortest_s = "turns", _turns(spent), {}, 0.0
    bottleneck = max(busy, key=busy.__getitem__) if setup.in_turns else _stage(limit, spent)
    verdict = Verdict(limit, bottleneck, rate, {} if limit == "absence" else found, busy, used)
    if limit == "absence" and not setup.restarts and "learner" in _missed(spent, setup):
        told = f"the learner has told of {spent.learner_s:.1f} of {spent.at_s:.1f} s"
        why = f"not measured (the run was too short: {told})"
        return dataclasses.replace(verdict, limit="", evidence=why)
    if spent.at_s < shortest_s or rate <= 0.0 or spent.gradient_steps <= 0:
        return dataclasses.replace(verdict, limit="", evidence=_missing(spent, shortest_s))
    return dataclasses.replace(
        verdict,
        changes=_changes(verdict, spent, setup),
        evidence=_evidence(verdict, spent, setup),
        spare=_spare(verdict, setup),
    )


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


def _missed(spent: Usage, setup: Setup) -> dict[str, float]:
    """Shares of the time in which parts were not there, of those whose absence counts."""
    there = {"workers": spent.workers_s / setup.workers, "learner": spent.learner_s}
    away = {name: spent.at_s - seconds for name, seconds in there.items() if seconds > 0.0}
    least = max(_AWAY * spent.at_s, _AWAY_S)
    return {name: _ratio(seconds, spent.at_s) for name, seconds in away.items() if seconds >= least}


def _idle(busy: Mapping[str, float], are_missed: bool) -> str:
    """The limit of a run that is far below every capacity."""
    busiest = max(busy, key=busy.__getitem__)
    if busiest != "workers" and busy[busiest] >= _BUSY:
        return busiest
    if are_missed:
        return "absence"
    return busiest if busy[busiest] >= _BUSY else "transfer"


def _stage(limit: str, spent: Usage) -> str:
    """The contract's name of a limit; of all cores, what takes most of them."""
    if limit == "cores":
        limit = max(spent.kinds, key=lambda name: spent.kinds[name].cpu_s)
    return _BOTTLENECKS.get(limit, "env" if spent.env_s >= spent.inference_s else "inference")


def _turns(spent: Usage) -> dict[str, float]:
    """Shares of the time of parts that take turns."""
    workers = max(spent.workers.count, 1)
    seconds = {"env": spent.env_s / workers, "inference": spent.inference_s / workers}
    seconds |= {"replay": spent.shards.work_s, "learner": spent.learner.work_s}
    shares = {stage: _ratio(taken_s, spent.at_s) for stage, taken_s in seconds.items()}
    return shares | {"transfer": max(1.0 - sum(shares.values()), 0.0)}


def _changes(verdict: Verdict, spent: Usage, setup: Setup) -> tuple[Change, ...]:
    """What would help; the share of the smallest capacity that is reached stays what it is."""
    limit, was, found = verdict.limit, verdict.env_steps_per_s, list[Change]()
    share = min(was / min(verdict.capacities.values(), default=was), 1.0)

    def add(name: str, value: Any, what: str, bound: Usage | None = None) -> None:
        """name: of a setting or a field of `setup`; bound: all that would be spent at most."""
        field: dict[str, Any] = {name: value} if name in _SETTINGS else {}
        changed = dataclasses.replace(setup, in_turns=False, **field)
        rate = min(capacities(bound or spent, changed).values()) * (1.0 if bound else share)
        told = f"at most {_rate(rate)}" if bound else f"{_rate(rate)} predicted"
        told += f", {rate / was:.1f} times"
        text = f"{what} ({told if math.isfinite(rate) else 'nothing else would limit it'})"
        setting, at_most = _SETTINGS.get(name, name), bound is not None
        found.append(Change(setting, value, rate, rate / was, text, at_most))

    endless = dataclasses.replace(spent, cores=math.inf)
    if limit in _SETTINGS:
        for bound, words in ((None, ""), (endless, " with cores for them")):
            now, number = getattr(setup, limit), _enough(limit, bound or spent, setup)
            add(limit, number, f"{number} {NAMES[limit]} for {now}{words}", bound)
        if found[1].gain <= _FAR * found[0].gain:
            del found[1]
    elif limit == "learner" and spent.device != "cuda":
        add("learner.device", "cuda", "a GPU", dataclasses.replace(spent, learner=Spent()))
    elif limit == "cores":
        add("", "", "more cores or another node", endless)
    elif limit == "transfer":
        add("", "", "more on the way (workers.max_in_flight, learner.prefetch)", spent)
    elif setup.in_turns:
        told = "mode async lets them overlap"
        if spent.compiled or spent.device == "cuda":
            add("mode", "async", told, endless)
        else:  # how fast a compiled update is, nobody has measured
            text = f"{told}, and compiles the update"
            found.append(Change("mode", "async", math.nan, math.nan, text))
    if limit in ("learner", "shards", "cores"):
        ratio, now = setup.samples_per_insert * _SMALLER_RATIO, setup.samples_per_insert
        add("samples_per_insert", ratio, f"samples_per_insert {ratio:g} for {now:g}")
    return tuple(change for change in found if not change.gain < _WORTH)


def _enough(limit: str, spent: Usage, setup: Setup) -> int:
    """The smallest number of parts that moves the limit on."""
    could, now = capacities(spent, setup), getattr(setup, limit)
    others = min(capacity for stage, capacity in could.items() if stage != limit)
    wanted = math.ceil(min(others / could[limit] * now, 1e9))
    return max(min(wanted, _MOST_TIMES * now), now + 1)


def _spare(verdict: Verdict, setup: Setup) -> str:
    """Whether fewer workers would do."""
    if verdict.limit in ("workers", "absence", "transfer", "turns"):
        return ""
    share = _SPARE * verdict.env_steps_per_s / verdict.capacities["workers"]
    enough = max(math.ceil(share * setup.workers), 1)
    would = "worker would" if enough == 1 else "workers would"
    return f"{enough} {would} do" if enough < setup.workers else ""


def _evidence(verdict: Verdict, spent: Usage, setup: Setup) -> str:
    """How the limit is known, the rate, and the stage that would be the limit next."""
    limit, busy, rate = verdict.limit, verdict.busy, _rate(verdict.env_steps_per_s)
    if limit == "turns":
        return f"the parts take turns ({_percents(busy)} percent of the time): {rate}"
    if limit == "transfer":
        shares = _percents({NAMES[name]: share for name, share in busy.items()})
        told = f"nothing is busy ({shares} percent), the parts wait for messages"
    elif limit == "absence":
        away = _percents(_missed(spent, setup))
        see = "; see errors.log" if setup.restarts else ""
        return f"parts were missing ({away} percent of the time): {rate}{see}"
    else:
        told = f"{NAMES[limit]} {100 * busy[limit]:.0f} percent busy"
    if limit == "workers":
        seconds, work_s = {"env": spent.env_s, "inference": spent.inference_s}, spent.workers.work_s
        told += f" ({_percents({name: _ratio(s, work_s) for name, s in seconds.items()})})"
    elif limit == "cores":
        used = ", ".join(f"{name} {cores:.1f}" for name, cores in verdict.cores_used.items())
        told = f"the {spent.cores:g} {told} ({used.replace('rest', 'Ray and all other programs')})"
    others = {name: value for name, value in verdict.capacities.items() if name != limit}
    nearest = min(others, key=others.__getitem__)
    if math.isfinite(others[nearest]):
        rate += f", the {NAMES[nearest]} could do {others[nearest]:,.0f}"
    return f"{told}: {rate}"


def _missing(spent: Usage, shortest_s: float) -> str:
    """Why no limit is known."""
    if spent.at_s >= shortest_s and (spent.gradient_steps <= 0 or spent.env_steps <= 0):
        return f"not measured (no {'update' if spent.env_steps > 0 else 'env step'} was made)"
    return (
        f"not measured (the run was too short: {spent.at_s:.1f} s of updates, "
        f"{shortest_s:g} s needed)"
    )


def _percents(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100.0 * share:.0f}" for name, share in shares.items())


def _rate(env_steps_per_s: float) -> str:
    return f"{env_steps_per_s:,.0f} env steps/s"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _per(parts: float, cost_s: float) -> float:
    return parts / cost_s if cost_s > 0 else math.inf
