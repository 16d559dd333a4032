"""The whole system, and the time that each stage waits.

A real run on Ray, driven until it is steady, beside what its parts reach alone just before
and just after it. Where every worker, shard and the learner has a core, the slower of
these is the limit; where cores are scarcer, it is all cores at the CPU time that an env
step took, with its share of an update, of replay and of Ray.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distdqn.bench.alone import Alone, measure_alone
from distdqn.bench.live_run import LiveRun, Measured, Say, opened_ray, without_end
from distdqn.bench.result import Case, Result, new_result, share_of
from distdqn.config import Config, to_plain
from distdqn.errors import begun
from distdqn.reporting.verdict import judge
from distdqn.run.factory import Factory, make_factory
from distdqn.run.record import setup_of
from distdqn.run.refusals import check_address
from distdqn.telemetry.usage import Usage

DEFAULT_PRESET = "cartpole-cleanrl"

_DISTURBED = 0.05  # of the cores
_OF_A_RUN = {"run_name", "runs_dir", "address", "total_env_steps"}  # not of what it does


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How long to measure; what is measured is the run's own configuration.

    seconds: of one window of the whole system.
    repeats: windows, and repetitions of each part alone.
    warm_up_s: seconds that the system runs on for after its first compiled updates.
    alone_seconds: of one repetition of the learner, and of a worker, alone.
    """

    seconds: float = 5.0
    repeats: int = 5
    warm_up_s: float = 3.0
    alone_seconds: float = 1.0


QUICK = Options(seconds=1.0, repeats=3, warm_up_s=0.5, alone_seconds=0.2)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What the system could reach at most, in env steps per second, `[R]` each.

    learner: bare updates, as many env steps as they are owed for.
    rollout: one worker's acting, times the workers.
    cores: all cores at the CPU time that an env step took.
    name: of the one that counts.
    """

    learner: tuple[float, ...]
    rollout: tuple[float, ...]
    cores: tuple[float, ...]
    name: str

    @property
    def values(self) -> tuple[float, ...]:
        """Of the one that counts."""
        return getattr(self, self.name)


LIMIT_NAMES = {
    "learner": "the bare update alone, at samples_per_insert",
    "rollout": "one worker's rollout alone, times the workers",
    "cores": "all cores at the CPU time measured per env step",
}


def run(
    options: Options, say: Say, config: Config, make_env: Callable[[], Any] | None = None
) -> Result:
    """Measures the parts alone, the system, and the parts again.

    make_env: as for `train`, picklable.
    Raises DistDQNError, one line, where the run cannot be made or fails; no actor is left.
    """
    ((config, measured),), alone = measure_systems(options, say, [config], make_env)
    case, verdict = case_of(measured, alone, config), judge(measured.whole, setup_of(config))
    notes = [verdict.line(), *told(measured, case.details), *remarks(measured, alone)]
    cases = [case, *alone_cases(alone, limits_of(measured, alone, config), config)]
    return new_result("pipeline", options, cases, notes, **configured(config, alone[0].device))


def configured(config: Config, device: str) -> dict[str, Any]:
    """What was measured, for the result's options; device: of the learner."""
    plain = {k: v for k, v in to_plain(config).items() if k not in _OF_A_RUN}
    return plain | {"device": device}


def measure_systems(
    options: Any, say: Say, configs: Sequence[Config], make_env: Callable[[], Any] | None = None
) -> tuple[list[tuple[Config, Measured]], list[Alone]]:
    """Every configuration as it runs, in turn, in one Ray; its parts alone before and after that.

    options: with `seconds`, `repeats`, `warm_up_s` and `alone_seconds`.
    """
    factories = [make_factory(without_end(config), make_env) for config in configs]
    largest = max(factories, key=lambda f: (f.config.workers.count, f.config.replay.shards))
    check_address(largest.config)  # refused before anything is measured
    with begun():
        return _measure_in_turn(factories, largest, options, say)


def _measure_in_turn(
    factories: Sequence[Factory], largest: Factory, options: Any, say: Say
) -> tuple[list[tuple[Config, Measured]], list[Alone]]:
    """largest: of the factories, whose parts are measured alone."""
    alone, found = [_parts_alone(largest, options, say)], []
    with opened_ray(largest, say) as name:
        for number, factory in enumerate(factories):
            with LiveRun(factory, f"{name}-{number}", say) as live:
                live.settle(options.warm_up_s, alone[0].compiled)
                measured = live.measure(options.seconds, options.repeats)
            config, whole = factory.config, measured.whole
            say(
                f"{config.workers.count} workers, {config.replay.shards} shards: "
                f"{whole.env_steps / whole.at_s:,.0f} env steps/s, "
                f"{whole.gradient_steps / whole.at_s:,.0f} updates/s"
            )
            found.append((config, measured))
    return found, [*alone, _parts_alone(largest, options, say)]


def _parts_alone(factory: Factory, options: Any, say: Say) -> Alone:
    alone = measure_alone(factory, options.alone_seconds, options.repeats)
    updates, env_steps = (np.median(x.per_s) for x in (alone.updates, alone.env_steps))
    say(f"alone: the learner {updates:,.0f} updates/s, a worker {env_steps:,.0f} env steps/s")
    return alone


def limits_of(measured: Measured, alone: list[Alone], config: Config) -> Limits:
    """alone: as measured before and after the system; a repetition's limit is their mean.

    Where learner, workers and shards have a core each, the slower part counts, else the cores.
    """
    workers = config.workers.count
    env_steps_per_update = config.learner.batch_size / config.replay.samples_per_insert
    learner = env_steps_per_update * np.mean([each.updates.per_s for each in alone], axis=0)
    rollout = workers * np.mean([each.env_steps.per_s for each in alone], axis=0)
    spent = zip(measured.windows, measured.cpu_s, strict=True)
    cores = [window.cores * window.env_steps / cpu_s for window, cpu_s in spent]
    name = "learner" if learner.mean() <= rollout.mean() else "rollout"
    if measured.whole.cores < 1 + workers + config.replay.shards:
        name = "cores"
    return Limits(tuple(learner.tolist()), tuple(rollout.tolist()), tuple(cores), name)


def case_of(measured: Measured, alone: list[Alone], config: Config) -> Case:
    """The system's figures beside the limit that counts.

    In the details the other limits, the updates, what one costs with all that it needs, and
    the ratio that was kept.
    """
    whole, limits = measured.whole, limits_of(measured, alone, config)
    rates = [window.env_steps / window.at_s for window in measured.windows]
    every = {name: getattr(limits, name) for name in LIMIT_NAMES}
    cpu_s, samples = sum(measured.cpu_s), whole.gradient_steps * config.learner.batch_size
    details = {
        "updates_per_s": whole.gradient_steps / whole.at_s,
        "cpu_s_per_update": cpu_s / whole.gradient_steps,
        "kept_samples_per_insert": samples / whole.env_steps,
        **shares_of(whole),
        **cores_of(measured),
        **{f"limit_{name}": float(np.median(limit)) for name, limit in every.items()},
        **{f"share_of_{name}": share_of(rates, limit).median for name, limit in every.items()},
        "limited_by": judge(whole, setup_of(config)).limit,
        "compiled": whole.compiled,
    }
    more = {"cpu_s": cpu_s / whole.env_steps, "peak_bytes": measured.peak_bytes, "details": details}
    limit_name = LIMIT_NAMES[limits.name]
    return _throughput("the system", config, rates, limits.values, limit_name, **more)


def _throughput(of: str, config: Config, rates: Sequence[float], *limit: Any, **more: Any) -> Case:
    """limit, more: as of `Case.of`; the settings tell one configuration from another."""
    settings: dict[str, Any] = {
        "of": of,
        "env": config.env.id,
        "workers": config.workers.count,
        "shards": config.replay.shards,
        "envs_per_worker": config.workers.envs_per_worker,
        "batch_size": config.learner.batch_size,
        "samples_per_insert": config.replay.samples_per_insert,
        "kind": config.replay.kind,
    }
    return Case.of("throughput", settings, "env steps/s", rates, *limit, **more)


def shares_of(window: Usage) -> dict[str, float]:
    """Of the time, mean over the parts of a kind: waiting for others, or at which work.

    `queued`: ready to run, but others had the core; part of the time that is not waited.
    """
    workers_s = max(window.workers.count, 1) * window.at_s
    return {
        "learner_waits": 1.0 - window.learner.busy(window.at_s),
        "learner_queued": window.learner.queued_s / window.at_s,
        "workers_wait": 1.0 - window.workers.busy(window.at_s),
        "workers_queued": window.workers.queued_s / workers_s,
        "workers_in_env": window.env_s / workers_s,
        "workers_in_inference": window.inference_s / workers_s,
        "shards_busy": window.shards.busy(window.at_s),
    }


def cores_of(measured: Measured) -> dict[str, float]:
    """CPU by part, in cores. `rest_cores` is driver, control, weight server and Ray."""
    whole, all_s = measured.whole, sum(measured.cpu_s)
    spent_s = {name: kind.cpu_s for name, kind in whole.kinds.items()}
    spent_s |= {"rest": all_s - sum(spent_s.values()), "all": all_s}
    return {f"{name}_cores": seconds / whole.at_s for name, seconds in spent_s.items()} | {
        "other_programs_cores": measured.other_cores,
        "cores": whole.cores,
    }


def alone_cases(alone: list[Alone], limits: Limits, config: Config) -> list[Case]:
    """What the parts reach alone, before and after the system, in the system's unit."""
    ratio = config.learner.batch_size / config.replay.samples_per_insert
    update_s = float(np.mean([each.updates.cpu_s for each in alone]))
    step_s = float(np.mean([each.env_steps.cpu_s for each in alone]))
    return [
        _throughput("the learner alone", config, limits.learner, cpu_s=update_s / ratio),
        _throughput("the workers' rollouts alone", config, limits.rollout, cpu_s=step_s),
    ]


def told(measured: Measured, details: Mapping[str, Any]) -> list[str]:
    """Where time and CPU went, in lines for a person."""
    times = {name: f"{share:.0%}" for name, share in shares_of(measured.whole).items()}
    used = cores_of(measured).items()
    cores = {name.removesuffix("_cores"): f"{number:.2f}" for name, number in used}
    limits = {name: f"{details[f'share_of_{name}']:.0%}" for name in LIMIT_NAMES}
    all_told = {"share of the time": times, "CPU in cores": cores, "share of each limit": limits}
    return [
        f"{kind}: " + ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
        for kind, texts in all_told.items()
    ]


def remarks(measured: Measured, alone: list[Alone]) -> list[str]:
    """What a reader must know to trust the figures, if anything."""
    whole, lines = measured.whole, [each.note for each in alone if each.note]
    if alone[0].compiled != whole.compiled:
        where = "the system's" if whole.compiled else "the bare"
        lines.append(f"only {where} update was compiled: the share of the bare learner is wrong")
    if measured.other_cores > _DISTURBED * whole.cores:
        lines.append(
            f"other programs took {measured.other_cores:.2f} of {whole.cores} cores meanwhile; "
            "measure again on a quiet machine"
        )
    return list(dict.fromkeys(lines))
