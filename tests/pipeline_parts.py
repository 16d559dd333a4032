"""Usages and polls made by hand, and a small configuration, for tests of live benchmarks."""

from distdqn.bench.live_run import Measured
from distdqn.config import Config, LearnerConfig, ReplayConfig, WorkersConfig
from distdqn.telemetry.reports import Poll
from distdqn.telemetry.usage import Spent, Usage


def usage(at_s, env_steps=0, gradient_steps=0, **others):
    return Usage(at_s=at_s, env_steps=env_steps, gradient_steps=gradient_steps, **others)


def poll(spent, notes=()):
    """A poll of which only the usage and the notes count."""
    return Poll(None, [], [], list(notes), usage=spent)


def measured(cores=2, workers=2, shards=1):
    """Two windows of 10 s, of 1,000 and of 2,000 env steps with 100 and 200 updates."""
    kinds = {
        "workers": Spent(workers, 15.0 * workers, 1.0, 4.0),
        "shards": Spent(shards, 5.0 * shards, 0.0, 2.0),
        "learner": Spent(1, 18.0, 3.0, 12.0),
    }
    none = {kind: Spent(part.count) for kind, part in kinds.items()}
    last = {"env_s": 12.0, "inference_s": 8.0, "rest_cpu_s": 10.0, "compiled": True}
    borders = (
        usage(100.0, 5000, 400, cores=cores, **none),
        usage(110.0, 6000, 500, cores=cores, **none),
        usage(120.0, 8000, 700, cores=cores, **kinds, **last),
    )
    return Measured(borders, cpu_s=(8.0, 12.0), peak_bytes=10**9)


def config(workers=2, shards=1, **others):
    """Ten env steps to an update: batch 32, 3.2 samples per insert."""
    return Config(
        workers=WorkersConfig(count=workers, envs_per_worker=2, block_transitions=64),
        replay=ReplayConfig(
            shards=shards, capacity=2000, min_size_to_sample=100, samples_per_insert=3.2
        ),
        learner=LearnerConfig(batch_size=32, superbatch=2, compile=False),
        **others,
    )
