"""Desired state and status of a run.

Parts report here and are answered with what to do next; the driver polls here. It
holds no weights and steps nothing, and it works without Ray in the tests.
"""

from __future__ import annotations

import asyncio
import collections
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distdqn.control.step_budget import StepBudget
from distdqn.control.usage_account import UsageAccount
from distdqn.control.value_diagnostics import ValueDiagnostics
from distdqn.telemetry.histograms import CountHistogram, LogHistogram
from distdqn.telemetry.ledger import Ledger, StreamAccount, close_stream, total
from distdqn.telemetry.rates import RateMeter
from distdqn.telemetry.reports import (
    EvaluationReport,
    LearnerReport,
    Poll,
    ShardReport,
    WorkerReport,
)
from distdqn.telemetry.status import RunStatus
from distdqn.types import LearnerDirective, ShardMap, WorkerDirective

_RETURNS_FOR_MEAN = 100
_MAX_PENDING_EPISODES = 10_000
_REPORTS_TO_SETTLE = 2  # the first after a death may have been under way before it

Stream = tuple[int, int]


class Control:
    """The account of a run, and its desired state.

    num_workers, num_shards: wanted.
    min_grant: smallest allowance of env steps dealt at once.
    report_period_s: how often parts report; allowances cover several periods.
    is_counted: whether an env (numbered over all workers) has one of the lowest
      epsilons, so that its returns count.
    stop_at_return: greedy mean return that ends the run, or None.
    discount: of one step, for the bound of the values; None for no bound.
    """

    def __init__(
        self,
        total_env_steps: int,
        num_workers: int,
        num_shards: int,
        min_grant: int,
        report_period_s: float,
        is_counted: Callable[[int], bool],
        stop_at_return: float | None,
        discount: float | None = None,
    ):
        self._budget = StepBudget(total_env_steps, min_grant)
        self._num_workers, self._num_shards = num_workers, num_shards
        self._report_period_s = report_period_s
        self._is_counted, self._stop_at_return = is_counted, stop_at_return
        self._started = time.monotonic()
        self._workers: dict[Stream, WorkerReport] = {}
        self._dead: set[Stream] = set()
        self._shards: dict[tuple[int, int], ShardReport] = {}
        self._shard_map = ShardMap()
        self._learner = LearnerReport()
        self._usage = UsageAccount()
        self._restarts = collections.Counter[str]()
        self._items_lost = 0
        self._returns: collections.deque[float] = collections.deque(maxlen=_RETURNS_FOR_MEAN)
        self._episodes: collections.deque[tuple[int, float, int]] = collections.deque(
            maxlen=_MAX_PENDING_EPISODES
        )
        self._evaluations: list[EvaluationReport] = []
        self._eval_mean = self._best_eval_mean = math.nan
        self._values = ValueDiagnostics(discount)
        self._notes: list[str] = []
        self._failures: dict[Stream, str] = {}
        self._unsettled: dict[Stream, collections.Counter[tuple[int, int]]] = {}
        self._state = "starting"
        self._meters = {"env_steps": RateMeter(), "gradient_steps": RateMeter()}

    async def run(self) -> None:
        """Never returns; its failure tells of a death."""
        await asyncio.Event().wait()

    # What the parts tell and are told.

    def report_worker(self, report: WorkerReport, shard_generation: int) -> WorkerDirective:
        stream, before = (report.worker, report.incarnation), self.env_steps
        if stream not in self._dead:
            self._workers[stream] = report
        self._note_episodes(report, before)
        self._values.note_rewards(report.reward_abs_max)
        rate = report.stepped / max(report.elapsed_s, self._report_period_s)
        ahead = 0 if stream in self._dead else round(4 * rate * self._report_period_s)
        if stream in self._dead or self._state == "stopping":
            allowance = self._budget.allowance(stream)
        else:
            allowance = self._budget.grant(stream, report.stepped, ahead)
        return WorkerDirective(
            allowance=allowance,
            env_steps=self.env_steps,
            finish=self._all_dealt,
            stop=self._state == "stopping" or stream in self._dead,
            shards=self._newer_map(shard_generation),
        )

    def _note_episodes(self, report: WorkerReport, before: int) -> None:
        """Spreads a report's episodes over the env steps since the one before it."""
        gained, num = self.env_steps - before, len(report.episodes)
        for i, (env, episode_return, length) in enumerate(report.episodes, start=1):
            if self._is_counted(env):
                self._returns.append(episode_return)
                self._episodes.append((before + gained * i // num, episode_return, length))

    def report_learner(self, report: LearnerReport, shard_generation: int) -> LearnerDirective:
        self._learner = report
        self._usage.hear_learner(report)
        self._values.note_values(report.q_abs_max)
        self._notes += filter(None, (report.note, self._values.announcement()))
        return LearnerDirective(
            env_steps=self.env_steps,
            collection_finished=self.collection_finished,
            stop=self._state == "stopping",
            shards=self._newer_map(shard_generation),
        )

    def report_shard(self, report: ShardReport) -> None:
        key = (report.counters.shard, report.counters.epoch)
        self._shards[key] = report
        for stream, reports in list(self._unsettled.items()):
            reports[key] += 1
            if all(reports[shard] >= _REPORTS_TO_SETTLE for shard in self._alive_shards()):
                self._budget.release(stream, self._ledger(stream).collected)
                del self._unsettled[stream]

    def report_evaluation(self, report: EvaluationReport) -> bool:
        """Takes a result; True where the evaluator is to go on."""
        self._evaluations.append(report)
        self._eval_mean = float(np.mean(report.returns))
        self._values.note_evaluation(report.q_start_mean, report.return_start_mean)
        self._best_eval_mean = float(np.nanmax([self._best_eval_mean, self._eval_mean]))
        if self._stop_at_return is not None and self._eval_mean >= self._stop_at_return:
            self._state = "stopping"
        return self._state != "stopping"

    def evaluator_may_go_on(self) -> bool:
        return self._state != "stopping" and not self.collection_finished

    # What the driver tells.

    def set_shards(self, shard_map: ShardMap) -> None:
        self._shard_map = shard_map

    def set_running(self) -> None:
        if self._state == "starting":
            self._state = "running"

    def stop(self) -> None:
        """Every part flushes and returns at its next report."""
        self._state = "stopping"

    def report_failure(self, worker: int, incarnation: int, line: str) -> None:
        """A worker is about to end because of its environment."""
        self._failures[worker, incarnation] = line

    def bury_worker(self, worker: int, incarnation: int) -> str:
        """A worker incarnation has died: its account closes.

        What it left of its allowance returns once every shard has reported again, since
        blocks that it sent may not be in any report yet.

        Returns the environment's failure if the worker told of one, else "".
        """
        stream = (worker, incarnation)
        self._dead.add(stream)
        self._restarts["worker"] += 1
        self._unsettled[stream] = collections.Counter()
        return self._failures.get(stream, "")

    def bury_shard(self, shard: int, epoch: int) -> None:
        self._restarts["shard"] += 1
        known = self._shards.get((shard, epoch))
        self._items_lost += known.counters.size if known else 0

    def count_restart(self, part: str) -> None:
        self._restarts[part] += 1

    def poll(self) -> Poll:
        """Status, and the episodes, evaluations and notes since the last poll."""
        episodes, self._episodes = (
            list(self._episodes),
            collections.deque(maxlen=_MAX_PENDING_EPISODES),
        )
        evaluations, self._evaluations = self._evaluations, []
        notes, self._notes = self._notes, []
        return Poll(
            status=self.status(),
            episodes=episodes,
            evaluations=evaluations,
            notes=notes,
            busy=self._busy(),
            usage=self._usage.total(
                self.env_steps,
                self._workers,
                len(self._alive_workers()),
                self._shards,
                len(self._alive_shards()),
            ),
            histograms={
                tag: histogram.bins()
                for tag, histogram in self._histograms().items()
                if histogram.total
            },
        )

    def pids(self) -> dict[str, Any]:
        """Process ids of the parts that are alive, workers and shards by index."""
        return {
            "learner": self._learner.pid,
            "workers": {w: r.pid for (w, _), r in self._alive_workers().items()},
            "shards": {s: r.pid for (s, _), r in self._alive_shards().items()},
        }

    def get_state(self) -> dict[str, Any]:
        """What reports do not tell again, for a run that goes on later; plain values."""
        return {
            "returns": np.array(self._returns),
            "eval_mean": self._eval_mean,
            "best_eval_mean": self._best_eval_mean,
            "values": self._values.get_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._returns.extend(state["returns"].tolist())
        self._eval_mean, self._best_eval_mean = state["eval_mean"], state["best_eval_mean"]
        self._values.set_state(state["values"])

    # Sums.

    @property
    def env_steps(self) -> int:
        """Env steps that yielded a transition, as far as reported."""
        return sum(self._ledger(stream).collected for stream in self._workers)

    @property
    def collection_finished(self) -> bool:
        """All env steps were dealt, taken, and every block acknowledged."""
        alive = self._alive_workers()
        return self._all_dealt and bool(alive) and all(r.finished for r in alive.values())

    @property
    def _all_dealt(self) -> bool:
        return self._budget.pool == 0 and not self._unsettled

    def status(self) -> RunStatus:
        now, env_steps = time.monotonic(), self.env_steps
        learner, workers, shards = self._learner, self._alive_workers(), self._alive_shards()
        self._meters["env_steps"].observe(now, env_steps)
        self._meters["gradient_steps"].observe(now, learner.gradient_steps)
        staleness, priorities = self._staleness(), self._histograms()["replay/priorities"]
        return RunStatus(
            state=self._state,
            elapsed_s=now - self._started,
            env_steps=env_steps,
            total_env_steps=self._budget.total_env_steps,
            gradient_steps=learner.gradient_steps,
            samples_per_insert=learner.samples_per_insert,
            env_steps_per_s=self._meters["env_steps"].rate,
            gradient_steps_per_s=self._meters["gradient_steps"].rate,
            workers_target=self._num_workers,
            workers_alive=len(workers),
            worker_restarts=self._restarts["worker"],
            shards_target=self._num_shards,
            shards_alive=sum(handle is not None for handle in self._shard_map.handles),
            shard_restarts=self._restarts["shard"],
            learner_restarts=self._restarts["learner"],
            shard_items=tuple(r.counters.size for _, r in sorted(shards.items())),
            items_lost=self._items_lost,
            replay_size=sum(r.counters.size for r in shards.values()),
            priority_max=max((r.priority_max for r in shards.values()), default=math.nan),
            learner_version=tuple(learner.version),
            learner_wait_fraction=_share(learner.wait_s, learner.elapsed_s),
            worker_wait_fraction=_share(
                sum(r.wait_s for r in workers.values()),
                sum(r.elapsed_s for r in workers.values()),
            ),
            staleness_p50=staleness.quantile(0.5),
            staleness_p95=staleness.quantile(0.95),
            transitions=total(self._ledger(stream) for stream in self._workers),
            train_return_mean=float(np.mean(self._returns)) if self._returns else math.nan,
            eval_return_mean=self._eval_mean,
            best_eval_return_mean=self._best_eval_mean,
            td_loss=learner.td_loss,
            q_values=learner.q_values,
            grad_norm=learner.grad_norm,
            td_error_abs_p50=learner.td_errors.quantile(0.5),
            td_error_abs_p95=learner.td_errors.quantile(0.95),
            td_error_abs_max=learner.td_errors.largest,
            priority_p50=priorities.quantile(0.5),
            priority_p95=priorities.quantile(0.95),
            stale_fraction_10=self._over_items("stale_fraction_10"),
            stale_fraction_100=self._over_items("stale_fraction_100"),
            **self._values.fields(),
            epsilon=_mean([r.epsilon for r in workers.values()]),
            learning_rate=learner.learning_rate,
            compiled=learner.compiled,
        )

    def _ledger(self, stream: Stream) -> Ledger:
        report = self._workers.get(stream, WorkerReport(*stream))
        reported = Ledger(report.collected, report.accepted, report.refused, report.in_flight, 0)
        if stream not in self._dead:
            return reported
        recorded = (r.streams.get(stream, StreamAccount()) for r in self._shards.values())
        return close_stream(reported, recorded)

    def _alive_workers(self) -> dict[Stream, WorkerReport]:
        return {s: r for s, r in self._workers.items() if s not in self._dead}

    def _alive_shards(self) -> dict[tuple[int, int], ShardReport]:
        newest: dict[int, int] = {}
        for shard, epoch in self._shards:
            newest[shard] = max(epoch, newest.get(shard, 0))
        return {key: r for key, r in self._shards.items() if newest[key[0]] == key[1]}

    def _staleness(self) -> CountHistogram:
        merged = CountHistogram()
        for report in self._shards.values():
            merged = merged.merged(report.staleness_counts)
        return merged

    def _histograms(self) -> dict[str, LogHistogram]:
        """By TensorBoard tag; the shards' together."""
        priorities = LogHistogram()
        for report in self._alive_shards().values():
            priorities = priorities.merged(report.diagnostics.priorities)
        return {"losses/td_error_abs": self._learner.td_errors, "replay/priorities": priorities}

    def _over_items(self, name: str) -> float:
        """A diagnostic of the shards, each weighing as much as it holds; nan with no item."""
        held = [report for report in self._alive_shards().values() if report.counters.size]
        parts = [getattr(report.diagnostics, name) * report.counters.size for report in held]
        return _share(sum(parts), sum(report.counters.size for report in held))

    def _newer_map(self, generation: int) -> ShardMap | None:
        return self._shard_map if self._shard_map.generation > generation else None

    def _busy(self) -> dict[str, float]:
        """Shares of the parts' time, for the verdict on the bottleneck."""
        workers, elapsed = self._alive_workers().values(), self._learner.elapsed_s
        worker_s = sum(r.elapsed_s for r in workers)
        return {
            "env": _share(sum(r.env_s for r in workers), worker_s),
            "inference": _share(sum(r.inference_s for r in workers), worker_s),
            "replay": _share(max((r.busy_s for r in self._shards.values()), default=0.0), elapsed),
            "learner": 1.0 - _share(self._learner.wait_s, elapsed),
        }


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
