"""The whole configuration, and what must hold between its parts.

Construction is the only gate: a `Config` that exists can be run, as far as can be known
without an environment, a machine or a cluster.
"""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from typing import Annotated, Literal

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

_CALLS_OF_THE_LEARNER = 18  # to one shard: 16 priority updates, a grant, and one to spare


@dataclasses.dataclass(frozen=True)
class Config:
    """A run: the same names in YAML, as dotted flags and in Python.

    Raises:
      ConfigError: on construction, one line with the key, its value, the bound and what
        would follow.
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
    """The environment and its rewards."""
    workers: WorkersConfig = dataclasses.field(default_factory=WorkersConfig)
    """Acting: env workers step vector envs and push blocks of transitions."""
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    """Replay; capacity and limits are totals over all shards."""
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    """Learning: the update, and how batches and weights travel."""
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    """The Q-network."""
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    """Evaluation without exploration, by an actor of its own."""
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    """Durable checkpoints in the run's folder."""

    def __post_init__(self) -> None:
        settle(self, "")
        _check_sizes(self)
        _check_blocks(self)
        _check_band(self)
        _check_run(self)
        _check_lockstep(self)


def resolved_error_band(config: Config) -> float:
    """`replay.error_band`, or the smallest whole one that is allowed; in samples."""
    given = config.replay.error_band
    return float(math.ceil(_smallest_error_band(config))) if given is None else given


def _smallest_error_band(config: Config) -> Fraction:
    """Half width, in samples, below which acting and learning could wait for each other.

    2 max(shards block_transitions samples_per_insert, prefetch superbatch batch_size): one
    block on its way to each shard, and all prefetched samples, move the account at once;
    the band must hold either on each side. Exact, as the account is: 3 x 64 x 12.8 is not
    in binary.
    """
    replay, workers, learner = config.replay, config.workers, config.learner
    inserted = replay.shards * workers.block_transitions * _exact(replay.samples_per_insert)
    sampled = Fraction(learner.prefetch * learner.superbatch * learner.batch_size)
    return 2 * max(inserted, sampled)


def _exact(value: float) -> Fraction:
    """The fraction of small numbers that was written as this float."""
    return Fraction(value).limit_denominator(10**6)


def _check_sizes(config: Config) -> None:
    replay, batch_size = config.replay, config.learner.batch_size
    if replay.min_size_to_sample < batch_size:
        raise ConfigError(
            f"replay.min_size_to_sample is {replay.min_size_to_sample}, must be at least "
            f"learner.batch_size {batch_size}: the first batch could not be filled"
        )
    if replay.capacity < replay.min_size_to_sample:
        raise ConfigError(
            f"replay.capacity is {replay.capacity}, must be at least "
            f"replay.min_size_to_sample {replay.min_size_to_sample}: learning would never start"
        )
    owed = replay.samples_per_insert * (config.total_env_steps - replay.min_size_to_sample)
    if owed < batch_size:
        raise ConfigError(
            f"total_env_steps is {config.total_env_steps}, too few after "
            f"replay.min_size_to_sample {replay.min_size_to_sample} at "
            f"replay.samples_per_insert {replay.samples_per_insert:g} for one update of "
            f"learner.batch_size {batch_size}: nothing would be learned"
        )


def _check_blocks(config: Config) -> None:
    workers, replay = config.workers, config.replay
    if workers.block_transitions < workers.envs_per_worker:
        raise ConfigError(
            f"workers.block_transitions is {workers.block_transitions}, must be at least "
            f"workers.envs_per_worker {workers.envs_per_worker}: one step of all envs would "
            "not fit into a block"
        )
    if replay.capacity < replay.shards * workers.block_transitions:
        raise ConfigError(
            f"replay.capacity is {replay.capacity}, must be at least replay.shards "
            f"{replay.shards} x workers.block_transitions {workers.block_transitions}: a block "
            "would overwrite itself in its shard"
        )


def _check_band(config: Config) -> None:
    replay, learner = config.replay, config.learner
    smallest = _smallest_error_band(config)
    if replay.error_band is not None and _exact(replay.error_band) < smallest:
        raise ConfigError(
            f"replay.error_band is {replay.error_band:.12g}, must be at least "
            f"{float(smallest):.12g} = 2 max(replay.shards {replay.shards} x "
            f"workers.block_transitions {config.workers.block_transitions} x "
            f"replay.samples_per_insert {replay.samples_per_insert:g}, learner.prefetch "
            f"{learner.prefetch} x learner.superbatch {learner.superbatch} x learner.batch_size "
            f"{learner.batch_size}): workers and learner would wait for each other"
        )


def _check_run(config: Config) -> None:
    learner = config.learner
    needed = max(learner.prefetch + _CALLS_OF_THE_LEARNER, config.workers.max_in_flight + 1)
    if config.max_pending_calls < needed:
        raise ConfigError(
            f"max_pending_calls is {config.max_pending_calls}, must be at least {needed} with "
            f"learner.prefetch {learner.prefetch} and workers.max_in_flight "
            f"{config.workers.max_in_flight}: a shard would refuse calls"
        )
    if config.eval.stop_at_return is not None and config.eval.period_env_steps is None:
        raise ConfigError(
            f"eval.stop_at_return is {config.eval.stop_at_return:g} but eval.period_env_steps is "
            "none: without evaluation the run could not stop there"
        )
    if learner.optimizer == "adam" and learner.optimizer_momentum > 0:
        raise ConfigError(
            f"learner.optimizer_momentum is {learner.optimizer_momentum:g}, must be 0 with "
            "learner.optimizer adam: only rmsprop has it, so it would be ignored"
        )
    if config.run_name is not None and not re.fullmatch(r"\w[\w.+-]*", config.run_name):
        raise ConfigError(
            f"run_name is {config.run_name!r}, must be letters, digits and . _ + - only, and "
            "begin with one of the first two: it names a folder in runs_dir"
        )


def _check_lockstep(config: Config) -> None:
    replay, learner = config.replay, config.learner
    if replay.kind == "fifo":
        _check_fifo(config)
    if learner.gradient == "residual" and learner.double:
        raise ConfigError(
            "learner.double is true, must be false with learner.gradient residual: that "
            "bootstraps from the online network alone"
        )
    if learner.precision == "float64" and learner.device == "cuda":
        raise ConfigError(
            "learner.device is cuda, must be cpu or auto with learner.precision float64: double "
            "precision is for verification"
        )
    if config.mode == "lockstep" and config.address is not None:
        raise ConfigError(
            f"address is {config.address!r}, must be none with mode lockstep, which runs in one "
            "process; mode lockstep_ray has the same schedule over actors"
        )


def _check_fifo(config: Config) -> None:
    """Each transition once, in order: one shard, a ratio of 1, and nobody who overtakes.

    The last `min_size_to_sample` ones of a run are not used: no update is owed for them.
    """
    replay, workers = config.replay, config.workers
    if config.mode == "async":
        raise ConfigError(
            "replay.kind is fifo, must be uniform or prioritized with mode async: only in "
            "lockstep is each transition drawn before it is evicted"
        )
    if replay.shards != 1 or replay.samples_per_insert != 1.0:
        raise ConfigError(
            f"replay.shards and replay.samples_per_insert must be 1 with replay.kind fifo, they "
            f"are {replay.shards} and {replay.samples_per_insert:g}: each transition is used once, "
            "in the order of arrival"
        )
    open_windows = (config.learner.n_step - 1) * workers.envs_per_worker
    in_a_round = workers.count * (workers.block_transitions + open_windows)
    waiting = replay.min_size_to_sample + in_a_round + config.learner.batch_size
    if replay.capacity < waiting:
        raise ConfigError(
            f"replay.capacity is {replay.capacity}, must be at least {waiting} = "
            "replay.min_size_to_sample + workers.count x (workers.block_transitions + "
            "(learner.n_step - 1) x workers.envs_per_worker) + learner.batch_size with replay.kind "
            "fifo: transitions would be evicted unused"
        )
