"""Distributed deep Q-learning on Ray.

           weights, with prioritized replay the target network too: one flat vector
           per version, published to the weight server, which answers who waits for it
      +-------------------------------------------------------------------------+
      v                                                                         |
 env worker x W  --TransitionBlock-->  replay shard x M  --ReplayBatch-->  learner
 (eps-greedy,      by value, window      (ring + sampler,  K minibatches,    (rate limiter,
  vector env,      of a few in flight     insert credit)   prefetched         compiled update,
  n-step, initial                       <--PriorityUpdate---------            target copies)
  priorities)                              of prioritized replay

Every part reports to one more actor, control, which keeps the account and deals out env
steps. The driver starts them all, polls control and replaces what dies.

Who waits for whom, and who releases it:

    env worker        its window of unacknowledged blocks is full    the shards' replies
                      its allowance of env steps is used up          control
    shard, adding     inserts are ahead of samples_per_insert        the learner's credit
    learner           samples are ahead, or nothing is prefetched    the shards
    evaluator         its period has not passed                      the env-step clock
    driver            nothing, once all have started: it polls       -

Which room holds what, from the ground up. A room imports only from lower floors
(`tests/test_architecture.py`), and the Ray shell of a part stands beside its core:

    1  types errors version           what travels, what is refused
       plain_json value_learning      JSON; TD targets and errors, one equation each
       rate_limiter machine/          samples_per_insert, by which shards and learner wait;
                                      cores, memory, how its commands are typed
    2  networks/ weights/             Q-networks; parameters on their way
       telemetry/                     what parts report; `status` declares every metric
       config/                        what a user sets: `tree` and `sections`, by `values`' rules
    3  envs/                          Gymnasium's envs as streams of transitions
       acting/                        env worker: rollout, exploration, n-step, blocks
       replay/                        shard: ring, sampler, rows of frames, saved state
       learning/                      learner: update, compilation, prefetch, publishing
       control/ reporting/            the run's counts; display, summary, verdict, plots
    4  evaluation/                    greedy episodes (`play`), videos
       files/                         run folder, checkpoint, `metrics_log`, codec
    5  run/                           an asynchronous run, and what lockstep shares with it:
                                      `factory` (makes every part), `refusals` and
                                      `start_budget` (what is refused before the start),
                                      `joining` (which Ray, and why not), `placement`,
                                      `supervisor` (replaces what dies), `interruption`
                                      (Ctrl-C), `record` (its history up to `summary.json`),
                                      `plan` (`--dry-run`)
    6  lockstep/ policy               the deterministic schedule; a trained policy
    7  api                            `train` and `resume`
    8  tabular/ bench/                exact solutions and `verify`; throughput
    9  cli/                           one file per verb, and `flags`, which splits them

`presets/` holds YAML alone. `import distdqn` loads neither torch nor ray; the names below
load what they need when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from distdqn.version import __version__

if TYPE_CHECKING:
    from distdqn.api import resume, train
    from distdqn.config import Config, load_config
    from distdqn.errors import (
        CheckpointError,
        CodecError,
        ConfigError,
        DistDQNError,
        EnvError,
        EnvFailure,
        MissingExtraError,
        ResourceError,
        RunError,
        UnknownEnvError,
        UnsupportedSpaceError,
    )
    from distdqn.policy import evaluate, load_policy

__all__ = [
    "CheckpointError",
    "CodecError",
    "Config",
    "ConfigError",
    "DistDQNError",
    "EnvError",
    "EnvFailure",
    "MissingExtraError",
    "ResourceError",
    "RunError",
    "UnknownEnvError",
    "UnsupportedSpaceError",
    "__version__",
    "evaluate",
    "load_config",
    "load_policy",
    "resume",
    "train",
]

_HOME = {
    "Config": "distdqn.config",
    "evaluate": "distdqn.policy",
    "load_config": "distdqn.config",
    "load_policy": "distdqn.policy",
    "resume": "distdqn.api",
    "train": "distdqn.api",
}
_ERRORS = "distdqn.errors"  # the home of all other names


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, _ERRORS)), name)


def __dir__() -> list[str]:
    return __all__
