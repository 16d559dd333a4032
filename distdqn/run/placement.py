"""Makes the actors and says where they run.

Control, weight server and evaluator stay on the driver's node and the learner close
to it; env workers and shards spread over the cluster. Constructor arguments are small
(a configuration and functions), because Ray keeps them for the actor's life.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distdqn.acting.env_worker import EnvWorker
from distdqn.control.control import Control
from distdqn.errors import ResourceError, RunError
from distdqn.evaluation.evaluator import Evaluator
from distdqn.replay.shard import ReplayShard
from distdqn.run.factory import Parts
from distdqn.run.ray_errors import cause_line
from distdqn.weights.server import WeightServer

_REPORT_PERIOD_S = 0.25
_NAMED = 4  # actors in a message
_LOOK_S = 0.5


class Placement:
    """Creates actors of one run; each method returns a new actor's handle.

    control (named "control" in the namespace `run_name`) and server are made at once,
    everything else when asked for, so that a replacement is made as its predecessor was.
    """

    def __init__(self, parts: Parts, run_name: str):
        self._parts, self._config = parts, parts.config
        node = ray.get_runtime_context().get_node_id()
        self._here = NodeAffinitySchedulingStrategy(node, soft=False)
        self._near = NodeAffinitySchedulingStrategy(node, soft=True)
        config = parts.config
        if _is_taken(run_name):
            raise RunError(
                f"run_name {run_name!r} is in use on this cluster; choose another with --run-name"
            )
        self.control = _actor(
            Control, scheduling_strategy=self._here, name="control", namespace=run_name
        ).remote(
            total_env_steps=config.total_env_steps,
            num_workers=config.workers.count,
            num_shards=config.replay.shards,
            min_grant=2 * config.workers.block_transitions,
            report_period_s=_REPORT_PERIOD_S,
            is_counted=parts.is_counted,
            stop_at_return=config.eval.stop_at_return,
            discount=config.learner.discount,
        )
        self.server = _actor(WeightServer, scheduling_strategy=self._here).remote()

    def learner(self, incarnation: int) -> Any:
        from distdqn.learning.learner_actor import LearnerActor

        learner, replay = self._config.learner, self._config.replay
        free_to_move = learner.num_gpus or learner.resources
        return _actor(
            LearnerActor,
            num_cpus=1,
            num_gpus=learner.num_gpus,
            resources=dict(learner.resources),
            scheduling_strategy="DEFAULT" if free_to_move else self._near,
        ).remote(
            build=self._parts.learner_parts,
            incarnation=incarnation,
            control=self.control,
            weight_server=self.server,
            publish_period=learner.publish_period,
            prioritized=replay.kind == "prioritized",
            snapshot_period_s=learner.snapshot_period_s,
            report_period_s=_REPORT_PERIOD_S,
        )

    def shard(self, shard: int, epoch: int) -> Any:
        return _actor(
            ReplayShard,
            scheduling_strategy=self._node_in_turn(shard + epoch, soft=epoch > 0),
            max_pending_calls=self._config.max_pending_calls,
        ).remote(
            build=partial(self._parts.replay, shard, epoch),
            shard=shard,
            epoch=epoch,
            insert_limit=self._parts.first_insert_limit() if epoch == 0 else 0,
            report=partial(_tell_control, self.control),
            report_period_s=_REPORT_PERIOD_S,
        )

    def _node_in_turn(self, index: int, soft: bool) -> NodeAffinitySchedulingStrategy:
        """Shards ask for no CPU, and Ray spreads only what asks for something.

        Not softly at first, as Ray was seen to put two on one node then; a replacement
        goes to the next node, softly: the one that has just died may still be listed.
        """
        others = sorted(n["NodeID"] for n in ray.nodes() if n["Alive"])
        others.remove(self._here.node_id)
        nodes = [self._here.node_id, *others]
        return NodeAffinitySchedulingStrategy(nodes[index % len(nodes)], soft=soft)

    def worker(self, worker: int, incarnation: int) -> Any:
        workers = self._config.workers
        return _actor(
            EnvWorker,
            num_cpus=workers.num_cpus,
            resources=dict(workers.resources),
            scheduling_strategy="SPREAD",
        ).remote(
            build=partial(self._parts.rollout, worker, incarnation),
            worker=worker,
            incarnation=incarnation,
            first_env=worker * workers.envs_per_worker,
            control=self.control,
            weight_server=self.server,
            max_in_flight=workers.max_in_flight,
            env_timeout_s=workers.env_timeout_s,
            report_period_s=_REPORT_PERIOD_S,
            gives_most_way=self._parts.updates_take_several_cores,
        )

    def evaluator(self, incarnation: int) -> Any:
        evaluation = self._config.eval
        return _actor(Evaluator, scheduling_strategy=self._near).remote(
            build=self._parts.evaluator,
            control=self.control,
            weight_server=self.server,
            period_env_steps=evaluation.period_env_steps,
            episodes=evaluation.episodes,
            seed=self._config.seed + 1_000_003 * (1 + incarnation),
        )


def needed_cpus(parts: Parts) -> float:
    """CPUs that the run's actors ask for: the learner one, each worker its own."""
    workers = parts.config.workers
    return 1 + workers.count * workers.num_cpus


def embedded_cpus(parts: Parts) -> int:
    """CPUs for an embedded Ray to declare: one more for each actor that asks for none.

    Ray starts as many processes as it has CPUs while it comes up itself; those that the
    control, weight server, evaluator and shards need are then there half a second sooner.
    """
    return math.ceil(needed_cpus(parts)) + 3 + parts.config.replay.shards


def lockstep_options(parts: Parts) -> dict[str, dict[str, Any]]:
    """How Ray is to place each kind of a lockstep run's actors."""
    workers, learner = parts.config.workers, parts.config.learner
    return {
        "worker": {
            "num_cpus": workers.num_cpus,
            "resources": dict(workers.resources),
            "scheduling_strategy": "SPREAD",
        },
        "shard": {"num_cpus": 0},
        "learner": {
            "num_cpus": 1,
            "num_gpus": learner.num_gpus,
            "resources": dict(learner.resources),
        },
        "evaluator": {"num_cpus": 0},
    }


def wait_until_ready(names: Mapping[Any, str], parts: Parts, look: Callable[[], None]) -> None:
    """Returns once every actor has started.

    names: of the actors, by the answer to `__ray_ready__`.
    look: called meanwhile; raises to give up.
    Raises RunError where one failed, ResourceError where one did not start within
    `start_timeout_s`, each in one line.
    """
    missing, deadline = list(names), time.monotonic() + parts.config.start_timeout_s
    while missing and time.monotonic() < deadline:
        look()
        missing = ray.wait(missing, num_returns=len(missing), timeout=_LOOK_S)[1]
    for ref, name in names.items():
        if ref not in missing:
            try:
                ray.get(ref)
            except RayError as error:
                raise RunError(f"the {name} did not start: {cause_line(error)}") from error
    if missing:
        raise _not_started([names[ref] for ref in missing], parts)


def _not_started(names: list[str], parts: Parts) -> ResourceError:
    config = parts.config
    return ResourceError(
        f"after {config.start_timeout_s:g} s still not started: {_few(names)}; the run "
        f"needs {needed_cpus(parts):g} CPUs and {config.learner.num_gpus:g} GPUs, "
        f"free are {amounts(ray.available_resources())} of "
        f"{amounts(ray.cluster_resources())}; "
        "take fewer workers (--workers.count) or less each (--workers.num-cpus)"
    )


def amounts(resources: dict[str, float]) -> str:
    """CPUs and GPUs as a user reads them."""
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def _actor(cls: type, num_cpus: float = 0, **options: Any) -> Any:
    return ray.remote(cls).options(
        num_cpus=num_cpus, max_restarts=0, enable_task_events=False, **options
    )


def _is_taken(run_name: str) -> bool:
    try:
        ray.get_actor("control", namespace=run_name)
    except ValueError:
        return False
    return True


def _tell_control(control: Any, report: Any) -> None:
    control.report_shard.remote(report)
