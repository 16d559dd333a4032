"""Distributed deep Q-learning on Ray.

            weights + target copy (one flat vector per version, pulled by the worker)
      +--------------------------------------------------------------------------+
      v                                                                          |
 env worker x W  --TransitionBlock-->  replay shard x M  --ReplayBatch x K-->  learner
 (eps-greedy,      by value, window      (ring + sampler)  prefetched            (one compiled
  vector env,      of a few in flight                      superbatches           update: target,
  n-step, initial                   <-------PriorityUpdate x K--------            gradient, step,
  priorities)                                                                     target copy)

Who waits for whom, and who releases it:

    env worker        its window of unacknowledged blocks is full    the shards' replies
    shard, adding     inserts are ahead of samples_per_insert        the learner's credit
    shard, sampling   it is empty                                    the env workers
    learner           samples are ahead, or nothing is prefetched    the shards
    evaluator         its period has not passed                      the env-step clock
    driver            nothing: it polls                              -

Which file holds what, from the ground up; a file imports only from lower floors:

    0  types, errors, config/, metrics,      what travels, what is refused, settings, counters,
       memory, replay_memory                 bytes taken and needed
       thread_times, usage                   what threads, and what the parts of a run, have spent
    1  envs/, exploration, n_step,           acting; frames on their way into a block, and
       frame_buffer, frame_stack             put together where a policy acts
       sum_tree, frame_ring, rate_limiter,   remembering; rows of frames, plain and compressed,
       frame_rows, compressed_rows,          stores past the caches, what a block must be
       streaming, block_check
       value_learning, optimizers,           learning
       networks, torsos, pictures
       cpu_threads, staging                  threads of each part; superbatches to the device
       accounting, step_budget               where transitions went; who may take how many steps
       codec, durable                        the one encoding; files that are whole
       replay_state, block_versions          what a replay's state is made of
    2  sampling, weights, update             ids and probabilities; flat parameters; the update
       compilation, compiled_cache           the update as machine code, beside training
    3  acting_network, rollout, replay,      the parts, each testable without Ray
       learner, evaluate, greedy, video
       value_diagnostics, value_panel        whether the values can be true; values in pictures
       checkpoint, replay_files, run_folder  durable files
       plots, html_page
    4  actors/                               thin Ray shells around floor 3
       lockstep, lockstep_parts              the deterministic schedule, and whom it asks
    5  parts, placement, session, summary    what is made, and where it runs; Ray; figures
       stage_costs, verdict                  what limits a run, and what would help
       system, lockstep_system               a run's parts and their life, in either mode
    6  train                                 the Python API
       async_run, lockstep_run, run_record   a run in either mode, and what it writes down
       checkpointing, progress               what it saves, and shows
       policy                                a trained policy
    7  tabular/, bench/                      exact solutions, and learning held against them;
                                             throughput
    8  cli/                                  one file per verb

`import distdqn` loads neither torch nor ray; the names below load what they need when
they are first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distdqn.config import Config, load_config
    from distdqn.policy import load_policy
    from distdqn.train import resume, train

__version__ = "0.1.0"
__all__ = ["Config", "__version__", "load_config", "load_policy", "resume", "train"]

_HOME = {
    "Config": "distdqn.config",
    "load_config": "distdqn.config",
    "load_policy": "distdqn.policy",
    "resume": "distdqn.train",
    "train": "distdqn.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """Keeps `distdqn.train` the function: importing the file `train.py`, anywhere, would bind
    the name to the module instead."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "train" and isinstance(value, types.ModuleType):
            value = value.train
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
