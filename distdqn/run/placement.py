"""Makes the actors and says where they run.

Control, weight server and evaluator stay on the driver's node and the learner close
to it; env workers and shards spread over the cluster. Constructor arguments are small
(a configuration and functions), because Ray keeps them for the actor's life.
"""

import contextlib
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distdqn.acting.env_worker import EnvWorker
from distdqn.config import construct_limit
from distdqn.control.control import Control
from distdqn.errors import RunError
from distdqn.evaluation.evaluator import Evaluator
from distdqn.learning.learner_actor import LearnerActor
from distdqn.replay.shard import ReplayShard
from distdqn.run.actors import actor_class, asked_for
from distdqn.weights.server import WeightServer

_REPORT_PERIOD_S = 0.25


class Placement:
    """Creates the actors of one run; what it gives are their handles.

    factory: a `Factory`, whose methods make in each actor what it runs.
    control (named "control" in the namespace `run_name`) and server are made at once,
    everything else when asked for, so that a replacement is made as its predecessor was.
    """

    def __init__(self, factory: Any, run_name: str):
        self._factory, self._config = factory, factory.config
        node = ray.get_runtime_context().get_node_id()
        self._here = NodeAffinitySchedulingStrategy(node, soft=False)
        self._asked = asked_for(self._config)
        with contextlib.suppress(ValueError):  # what Ray raises where there is none
            ray.get_actor("control", namespace=run_name)
            raise RunError(
                f"run_name {run_name!r} is in use on this cluster; choose another with --run-name"
            )
        min_grant = 2 * self._config.workers.block_transitions
        self.control = actor_class(
            Control, scheduling_strategy=self._here, name="control", namespace=run_name
        ).remote(**factory.control_arguments(min_grant, _REPORT_PERIOD_S))
        self.server = actor_class(WeightServer, scheduling_strategy=self._here).remote()

    def create(self, kind: str, index: int, incarnation: int) -> Any:
        """An actor of a kind; incarnation: that of a shard is its epoch."""
        if kind == "learner":
            return self._learner(incarnation)
        if kind == "evaluator":
            return self._evaluator(incarnation)
        make = self._shard if kind == "shard" else self._worker
        return make(index, incarnation)

    def _learner(self, incarnation: int) -> Any:
        learner = self._config.learner
        near = NodeAffinitySchedulingStrategy(self._here.node_id, soft=True)
        return actor_class(
            LearnerActor,
            **self._asked["learner"],
            scheduling_strategy="DEFAULT" if learner.num_gpus or learner.resources else near,
        ).remote(
            build=self._factory.learner_core,
            incarnation=incarnation,
            control=self.control,
            weight_server=self.server,
            prioritized=self._config.replay.kind == "prioritized",
            report_period_s=_REPORT_PERIOD_S,
        )

    def _shard(self, shard: int, epoch: int) -> Any:
        return actor_class(
            ReplayShard,
            scheduling_strategy=self._node_in_turn(shard + epoch),
            max_pending_calls=self._config.max_pending_calls,
        ).remote(
            build=partial(self._factory.shard, shard, epoch),
            insert_limit=self._factory.first_insert_limit() if epoch == 0 else 0,
            report=partial(_tell_control, self.control),
            report_period_s=_REPORT_PERIOD_S,
        )

    def _node_in_turn(self, index: int) -> NodeAffinitySchedulingStrategy:
        """The driver's node and the others in turn, so that a replacement goes to another.

        Never softly: Ray sends an actor that asks for no CPU to a random node then, be it
        the one that has just died and is not yet known to be dead.
        """
        others = sorted(n["NodeID"] for n in ray.nodes() if n["Alive"])
        others.remove(self._here.node_id)
        nodes = [self._here.node_id, *others]
        return NodeAffinitySchedulingStrategy(nodes[index % len(nodes)], soft=False)

    def _worker(self, worker: int, incarnation: int) -> Any:
        workers = self._config.workers
        return actor_class(EnvWorker, **self._asked["worker"]).remote(
            build=partial(self._factory.rollout, worker, incarnation),
            stream=(worker, incarnation),
            control=self.control,
            weight_server=self.server,
            max_in_flight=workers.max_in_flight,
            env="make_env()" if self._factory.make_env else self._config.env.id,
            construct_limit=construct_limit(self._config),
            env_timeout_s=workers.env_timeout_s,
            report_period_s=_REPORT_PERIOD_S,
            gives_most_way=self._factory.updates_take_several_cores,
        )

    def _evaluator(self, incarnation: int) -> Any:
        evaluation = self._config.eval
        return actor_class(Evaluator, scheduling_strategy=self._here).remote(
            build=self._factory.evaluator,
            control=self.control,
            weight_server=self.server,
            period_env_steps=evaluation.period_env_steps,
            episodes=evaluation.episodes,
            seed=self._config.seed + 1_000_003 * (1 + incarnation),
        )


def _tell_control(control: Any, report: Any) -> None:
    control.report_shard.remote(report)
