"""The whole configuration, and what must hold between its sections.

Construction is the only gate: a `Config` that exists can be run, as far as can be known
without an environment, a machine or a cluster.
"""

import dataclasses
import math
import operator
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal

from distdqn.config.keys import build, flatten, key_types
from distdqn.config.sections import (
    CheckpointConfig,
    EnvConfig,
    EvalConfig,
    LearnerConfig,
    NetworkConfig,
    ReplayConfig,
    WorkersConfig,
)
from distdqn.config.values import Range, settle
from distdqn.errors import ConfigError
from distdqn.rate_limiter import exact

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")  # it has keywords for these
_CALLS_OF_THE_LEARNER = 18  # to one shard: 16 priority updates, a grant, and one to spare


@dataclasses.dataclass(frozen=True)
class Config:
    """A run: the same names in YAML, as dotted flags and in Python.

    Construction raises ConfigError: the key, its value, the bound and what would follow.
    """

    total_env_steps: Annotated[int, Range("there would be no run", 1)] = 100_000
    """Env steps of the whole run, over all workers; a step that yields a transition counts."""
    seed: Annotated[int, Range("seeds are unsigned 32-bit numbers", 0, 2**32 - 1)] = 1
    """Seeds envs, exploration, sampling and the network."""
    mode: Literal["async", "lockstep", "lockstep_ray"] = "async"
    """lockstep: a deterministic schedule in one process without Ray; lockstep_ray: over actors."""
    run_name: str | None = None
    """Name of the run and of its folder; none: from the env id and the time."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    address: str | None = None
    """Ray cluster to join, auto or HOST:PORT; none: an embedded Ray of the run's own."""
    init_from: str | None = None
    """Run, by name or folder, whose weights to start from."""
    init_checkpoint: str = "best"
    """Which of that run's checkpoints: best, newest, or a path."""
    start_timeout_s: Annotated[float, Range("nothing starts in no time", 0, above=True)] = 120.0
    """Seconds in which all actors must be up; after them the run says what is missing."""
    max_pending_calls: Annotated[int, Range("no call could be made", 1)] = 64
    """Calls that may wait at one actor."""
    max_log_lines_per_s: Annotated[float, Range("nothing would be said", 0, above=True)] = 20.0
    """Log lines per second that one process may write; the rest are counted."""
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    workers: WorkersConfig = dataclasses.field(default_factory=WorkersConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        settle(self, "")
        for check in (_sizes, _band, _calls, _resources, _combinations, _fifo):
            for holds, refusal in check(self):
                if not holds:
                    raise ConfigError(refusal)

    def with_values(self, values: Mapping[str, Any]) -> "Config":
        """A copy with some values replaced, by dotted key or nested; refuses as `load_config`."""
        given = flatten(values, Config)
        kept = {key: operator.attrgetter(key)(self) for key in key_types(Config)}
        return build(Config, kept | given)


def own_modules(config: Config) -> list[str]:
    """Names of the user's modules that a configuration names, in `module:function` and the like."""
    named = (config.env.id, config.network.torso, *config.env.wrappers)
    return [text.partition(":")[0] for text in map(str, named) if ":" in text.partition("(")[0]]


def construct_limit(config: Config) -> tuple[float, str]:
    """Seconds in which a worker's envs must be made, and what to say of envs that were not."""
    keys = "workers.construct_timeout_s", "start_timeout_s"  # a start has its own limit
    limits = [(operator.attrgetter(key)(config), key) for key in keys]
    seconds, key = min(limits, key=operator.itemgetter(0))
    return seconds, f"was not constructed within {seconds:g} s ({key})"


def resolved_error_band(config: Config) -> float:
    """`replay.error_band`, or the smallest whole one that is allowed; in samples."""
    given = config.replay.error_band
    return float(math.ceil(_smallest_error_band(config))) if given is None else given


def _smallest_error_band(config: Config) -> Fraction:
    """Half width, in samples, below which acting and learning could wait for each other.

    2 max(shards block_transitions samples_per_insert, prefetch superbatch batch_size): one block on
    its way to each shard, and all prefetched samples, move the account at once; the band must hold
    either on each side. Exact, as the account is: 3 x 64 x 12.8 is not in binary.
    """
    replay, workers, learner = config.replay, config.workers, config.learner
    inserted = replay.shards * workers.block_transitions * exact(replay.samples_per_insert)
    sampled = Fraction(learner.prefetch * learner.superbatch * learner.batch_size)
    return 2 * max(inserted, sampled)


# What must hold between the sections: pairs of whether it does, and the refusal if not.
_Checks = Iterator[tuple[bool, str]]


_AT_LEAST = {  # by what would follow otherwise
    "the first batch could not be filled": "replay.min_size_to_sample >= learner.batch_size",
    "learning would never start": "replay.capacity >= replay.min_size_to_sample",
    "a step of all envs would not fit": "workers.block_transitions >= workers.envs_per_worker",
    "a shard could hold no block": "replay.capacity >= replay.shards x workers.block_transitions",
}


def _sizes(config: Config) -> _Checks:
    for so, relation in _AT_LEAST.items():
        key, *factors = re.split(" >= | x ", relation)
        value, *numbers = operator.attrgetter(key, *factors)(config)
        bound = " x ".join(f"{name} {n}" for name, n in zip(factors, numbers, strict=True))
        yield value >= math.prod(numbers), f"{key} is {value}, must be at least {bound}: {so}"
    replay, batch_size = config.replay, config.learner.batch_size
    owed = replay.samples_per_insert * (config.total_env_steps - replay.min_size_to_sample)
    yield (
        owed >= batch_size,
        f"total_env_steps is {config.total_env_steps}, too few after "
        f"replay.min_size_to_sample {replay.min_size_to_sample} at "
        f"replay.samples_per_insert {replay.samples_per_insert:g} for one update of "
        f"learner.batch_size {batch_size}: nothing would be learned",
    )


def _band(config: Config) -> _Checks:
    replay, learner, smallest = config.replay, config.learner, _smallest_error_band(config)
    band = float(smallest) if replay.error_band is None else replay.error_band
    yield (
        replay.error_band is None or exact(band) >= smallest,
        f"replay.error_band is {band:.12g}, must be at least {float(smallest):.12g} = "
        f"2 max(replay.shards {replay.shards} x workers.block_transitions "
        f"{config.workers.block_transitions} x replay.samples_per_insert "
        f"{replay.samples_per_insert:g}, learner.prefetch {learner.prefetch} x "
        f"learner.superbatch {learner.superbatch} x learner.batch_size {learner.batch_size}): "
        "workers and learner would wait for each other",
    )


def _calls(config: Config) -> _Checks:
    prefetch, max_in_flight = config.learner.prefetch, config.workers.max_in_flight
    needed = max(prefetch + _CALLS_OF_THE_LEARNER, max_in_flight + 1)
    yield (
        config.max_pending_calls >= needed,
        f"max_pending_calls is {config.max_pending_calls}, must be at least {needed} with "
        f"learner.prefetch {prefetch} and workers.max_in_flight {max_in_flight}: a shard would "
        "refuse calls",
    )
    yield (
        config.run_name is None or bool(re.fullmatch(r"\w[\w.+-]*", config.run_name)),
        f"run_name is {config.run_name!r}, must be letters, digits and . _ + - only, and begin "
        "with one of the first two: it names a folder in runs_dir",
    )


def _resources(config: Config) -> _Checks:
    """What Ray would refuse where an actor asks for it."""
    gpus = config.learner.num_gpus
    yield (
        gpus <= 1 or gpus == int(gpus),
        f"learner.num_gpus is {gpus:g}, must be whole above 1: Ray shares one GPU, not several",
    )
    for section in ("workers", "learner"):
        for name, amount in getattr(config, section).resources.items():
            asked = f"{section}.resources has {name} {amount:g}, must"
            yield (
                name not in _RAYS_OWN,
                f"{asked} name custom resources only: workers.num_cpus and learner.num_gpus ask "
                "for CPUs and GPUs",
            )
            yield (
                round(amount, 4) == amount,
                f"{asked} have at most four digits after the point: Ray counts no finer",
            )


def _combinations(config: Config) -> _Checks:
    """Values that others make void."""
    learner, stop = config.learner, config.eval.stop_at_return
    yield (
        stop is None or config.eval.period_env_steps is not None,
        f"eval.stop_at_return is {stop} but eval.period_env_steps is none: without evaluation "
        "the run could not stop there",
    )
    yield (
        learner.optimizer_momentum == 0 or learner.optimizer != "adam",
        f"learner.optimizer_momentum is {learner.optimizer_momentum:g}, must be 0 with "
        "learner.optimizer adam: only rmsprop has it, so it would be ignored",
    )
    yield (
        config.mode != "lockstep" or config.address is None,
        f"address is {config.address!r}, must be none with mode lockstep, which runs in one "
        "process; mode lockstep_ray has the same schedule over actors",
    )
    yield (
        learner.gradient != "residual" or not learner.double,
        "learner.double is true, must be false with learner.gradient residual: that bootstraps "
        "from the online network alone",
    )
    yield (
        learner.precision != "float64" or learner.device != "cuda",
        "learner.device is cuda, must be cpu or auto with learner.precision float64: double "
        "precision is for verification",
    )


def _fifo(config: Config) -> _Checks:
    """Each transition once, in order: one shard, a ratio of 1, and nobody who overtakes.

    The last `min_size_to_sample` ones of a run are not used: no update is owed for them.
    """
    replay, workers = config.replay, config.workers
    if replay.kind != "fifo":
        return
    yield (
        config.mode != "async",
        "replay.kind is fifo, must be uniform or prioritized with mode async: only in lockstep is "
        "each transition drawn before it is evicted",
    )
    yield (
        replay.shards == 1 and replay.samples_per_insert == 1.0,
        f"replay.shards and replay.samples_per_insert must be 1 with replay.kind fifo, they are "
        f"{replay.shards} and {replay.samples_per_insert:g}: each transition is used once, in the "
        "order of arrival",
    )
    open_windows = (config.learner.n_step - 1) * workers.envs_per_worker
    in_a_round = workers.count * (workers.block_transitions + open_windows)
    waiting = replay.min_size_to_sample + in_a_round + config.learner.batch_size
    yield (
        replay.capacity >= waiting,
        f"replay.capacity is {replay.capacity}, must be at least {waiting} = "
        "replay.min_size_to_sample + workers.count x (workers.block_transitions + "
        "(learner.n_step - 1) x workers.envs_per_worker) + learner.batch_size with replay.kind "
        "fifo: transitions would be evicted unused",
    )
