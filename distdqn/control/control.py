"""Desired state and status of a run.

Parts report here and are answered with what to do next; the driver polls here. It
holds no weights and steps nothing, and it works without Ray in the tests.
"""

import asyncio
import collections
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distdqn.control.step_budget import StepBudget, Stream
from distdqn.control.value_diagnostics import ValueDiagnostics
from distdqn.errors import EnvFailure
from distdqn.telemetry.histograms import CountHistogram, LogHistogram
from distdqn.telemetry.ledger import Ledger, StreamAccount, close_stream
from distdqn.telemetry.rates import RateMeter
from distdqn.telemetry.reports import (
    EvaluationReport,
    LearnerReport,
    Poll,
    ShardReport,
    WorkerReport,
)
from distdqn.telemetry.status import AT_END, RunStatus, shared
from distdqn.telemetry.usage import RestMeter, Usage, sum_of
from distdqn.types import LearnerDirective, ShardMap, WorkerDirective

_UNTOLD = "its worker died"  # before it could say why
_RETURNS_FOR_MEAN = 100
_MAX_PENDING_EPISODES = 10_000
_REPORTS_TO_SETTLE = 2  # the first after a death may have been under way before it

Epoch = tuple[int, int]  # shard, epoch
Episodes = collections.deque[tuple[int, float, int]]


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
        self._ledgers: dict[Stream, Ledger] = {}
        self._transitions = Ledger()  # the sum of these
        self._shards: dict[Epoch, ShardReport] = {}
        self._dead_shards: set[Epoch] = set()
        self._shard_map = ShardMap()
        self._learners: dict[int, LearnerReport] = {}
        self._learner = LearnerReport()
        self._rest = RestMeter()
        self._restarts: collections.Counter[str] = collections.Counter()
        self._items_lost = 0
        self._returns: collections.deque[float] = collections.deque(maxlen=_RETURNS_FOR_MEAN)
        self._episodes: Episodes = collections.deque(maxlen=_MAX_PENDING_EPISODES)
        self._evaluations: list[EvaluationReport] = []
        self._eval_mean = self._best_eval_mean = math.nan
        self._values = ValueDiagnostics(discount)
        self._notes: list[str] = []
        self._said_refused = False
        self._failures: dict[Stream, EnvFailure] = {}
        self._unsettled: dict[Stream, collections.Counter[Epoch]] = {}
        self._state = "starting"
        self._env_meter, self._update_meter = RateMeter(), RateMeter()

    async def run(self) -> None:
        """Never returns; its failure tells of a death."""
        await asyncio.Event().wait()

    # What the parts tell and are told.

    def report_worker(self, report: WorkerReport, shard_generation: int) -> WorkerDirective:
        stream, before = (report.worker, report.incarnation), self.env_steps
        if stream not in self._dead:
            self._workers[stream] = report
            self._book(stream)
        self._note_episodes(report, before)
        if report.note and not self._said_refused:
            self._said_refused = True
            self._notes.append(report.note)
        self._values.note_rewards(report.reward_abs_max)
        if stop := self._state == "stopping" or stream in self._dead:
            allowance = self._budget.allowance(stream)
        else:
            rate = report.stepped / max(report.elapsed_s, self._report_period_s)
            ahead = round(4 * rate * self._report_period_s)
            allowance = self._budget.grant(stream, report.stepped, ahead)
        return WorkerDirective(
            allowance=allowance,
            env_steps=self.env_steps,
            finish=self._all_dealt,
            stop=stop,
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
        self._learner = self._learners[report.version.incarnation] = report
        self._values.note_values(report.q_abs_max)
        self._notes += filter(None, (report.note, self._values.announcement()))
        return LearnerDirective(
            collection_finished=self.collection_finished,
            stop=self._state == "stopping",
            shards=self._newer_map(shard_generation),
        )

    def report_shard(self, report: ShardReport) -> None:
        key = (report.counters.shard, report.counters.epoch)
        self._shards[key] = report
        for stream in self._dead & report.streams.keys():
            self._book(stream)
        for stream, reports in list(self._unsettled.items()):
            reports[key] += 1
            alive = self._alive_shards()
            if alive and all(reports[shard] >= _REPORTS_TO_SETTLE for shard in alive):
                self._budget.release(stream, self._ledgers[stream].collected)
                del self._unsettled[stream]

    def report_evaluation(self, report: EvaluationReport) -> bool:
        """Takes a result; True where the evaluator is to go on."""
        self._evaluations.append(report)
        self._eval_mean = float(np.mean(report.returns))
        self._values.note_evaluation(report.q_start_mean, report.return_start_mean)
        self._best_eval_mean = float(np.fmax(self._best_eval_mean, self._eval_mean))
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

    def report_failure(self, worker: int, incarnation: int, failure: EnvFailure) -> None:
        """A worker is about to end because of its environment."""
        self._failures[worker, incarnation] = failure

    def bury_worker(self, worker: int, incarnation: int) -> EnvFailure | None:
        """A worker incarnation has died: its account closes.

        What it left of its allowance returns once every shard has reported again, since
        blocks that it sent may not be in any report yet.

        Returns the environment's failure, if the worker told of one.
        """
        stream = (worker, incarnation)
        self._dead.add(stream)
        self._book(stream)
        self._unsettled[stream] = collections.Counter()
        return self._failures.get(stream)

    def bury_shard(self, shard: int, epoch: int) -> None:
        self._dead_shards.add((shard, epoch))
        if known := self._shards.get((shard, epoch)):
            self._items_lost += known.counters.size

    def count_restart(self, part: str) -> None:
        self._restarts[part] += 1

    def poll(self) -> Poll:
        """Status, and the episodes, evaluations and notes since the last poll."""
        errors, priorities = self._learner.td_errors, self._priorities()
        histograms = {"losses/td_error_abs": errors, "replay/priorities": priorities}
        return Poll(
            status=self.status(),
            episodes=_drained(self._episodes),
            evaluations=_drained(self._evaluations),
            notes=_drained(self._notes),
            histograms={tag: drawn.bins() for tag, drawn in histograms.items() if drawn.total},
            usage=self._usage(),
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
        means = {"eval_mean": self._eval_mean, "best_eval_mean": self._best_eval_mean}
        return {"returns": np.array(self._returns), "values": self._values.get_state(), **means}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._returns.extend(state["returns"].tolist())
        self._eval_mean, self._best_eval_mean = state["eval_mean"], state["best_eval_mean"]
        self._values.set_state(state["values"])

    # Sums.

    @property
    def env_steps(self) -> int:
        """Env steps that yielded a transition, as far as reported."""
        return self._transitions.collected

    @property
    def collection_finished(self) -> bool:
        """All env steps were dealt, taken, and every block acknowledged."""
        finished = [report.finished for report in self._alive_workers().values()]
        return self._all_dealt and bool(finished) and all(finished)

    @property
    def _all_dealt(self) -> bool:
        return self._budget.pool == 0 and not self._unsettled

    def status(self) -> RunStatus:
        learner, now = self._learner, time.monotonic()
        same_names = RunStatus(**(shared(learner) | shared(self._values)))
        return dataclasses.replace(
            same_names,
            state=self._state,
            elapsed_s=now - self._started,
            env_steps=self.env_steps,
            total_env_steps=self._budget.total_env_steps,
            transitions=self._transitions,
            transitions_refused_by=self._refused_by(),
            train_return_mean=float(np.mean(self._returns)) if self._returns else math.nan,
            eval_return_mean=self._eval_mean,
            best_eval_return_mean=self._best_eval_mean,
            learner_wait_fraction=_share(learner.wait_s, learner.elapsed_s),
            td_error_abs_max=learner.td_errors.largest,
            env_steps_per_s=self._env_meter.rate(now, self.env_steps),
            gradient_steps_per_s=self._update_meter.rate(now, learner.gradient_steps),
            items_lost=self._items_lost,
            worker_restarts=self._restarts["worker"],
            shard_restarts=self._restarts["shard"],
            learner_restarts=self._restarts["learner"],
            **_quantiles("td_error_abs", learner.td_errors),
            **self._of_workers(),
            **self._of_shards(),
        )

    def _refused_by(self) -> dict[str, int]:
        """Refused transitions by cause; of a dead worker as far as it had told."""
        by_cause: collections.Counter[str] = collections.Counter()
        for report in self._workers.values():
            by_cause.update(report.refused_by)
            by_cause[AT_END] += report.refused_at_end
        by_cause[_UNTOLD] = self._transitions.refused - sum(by_cause.values())
        return {cause: number for cause, number in sorted(by_cause.items()) if number > 0}

    def _of_workers(self) -> dict[str, Any]:
        workers = self._alive_workers().values()
        waited_s, elapsed_s = sum(r.wait_s for r in workers), sum(r.elapsed_s for r in workers)
        return {
            "workers_target": self._num_workers,
            "workers_alive": len(workers),
            "worker_wait_fraction": _share(waited_s, elapsed_s),
            "epsilon": _share(sum(r.epsilon for r in workers), len(workers)),
        }

    def _of_shards(self) -> dict[str, Any]:
        shards = [report for _, report in sorted(self._alive_shards().items())]
        items = tuple(report.counters.size for report in shards)
        staleness = CountHistogram()
        for report in self._shards.values():  # the dead ones' too
            staleness.counts += report.staleness_counts
        return {
            "shards_target": self._num_shards,
            "shards_alive": len(shards),
            "shard_items": items,
            "replay_size": sum(items),
            "priority_max": max((report.priority_max for report in shards), default=math.nan),
            "refused_priorities": sum(r.refused_priorities for r in self._shards.values()),
            "stale_fraction_10": self._over_items("stale_fraction_10"),
            "stale_fraction_100": self._over_items("stale_fraction_100"),
            **_quantiles("priority", self._priorities()),
            **_quantiles("staleness", staleness),
        }

    def _usage(self) -> Usage:
        """What all incarnations have spent, dead ones too, so that the sums never fall."""
        workers, shards = self._workers.values(), self._shards.values()
        learners = self._learners.values()
        spent = [r.spent for reports in (workers, shards, learners) for r in reports if r.spent]
        return Usage(
            **shared(self._learner, Usage),  # updates, device, whether compiled
            workers=sum_of(len(self._alive_workers()), (r.spent for r in workers)),
            shards=sum_of(len(self._alive_shards()), (r.spent for r in shards)),
            learner=sum_of(min(len(learners), 1), (r.spent for r in learners)),
            at_s=time.monotonic(),
            env_steps=self.env_steps,
            workers_s=sum(report.elapsed_s for report in workers),
            learner_s=sum(report.elapsed_s for report in learners),
            env_s=sum(report.env_s for report in workers),
            inference_s=sum(report.inference_s for report in workers),
            adding_s=sum(report.adding_s for report in shards),
            replay_s=sum(report.busy_s for report in shards),
            rest_cpu_s=self._rest.cpu_s(spent),
            cores=self._rest.cores(spent),
        )

    def _book(self, stream: Stream) -> None:
        """Brings the ledger of a stream, and with it the sum over all, up to date."""
        report = self._workers.get(stream, WorkerReport(*stream))
        ledger = Ledger(report.collected, report.accepted, report.refused, report.in_flight, 0)
        if stream in self._dead:
            told = (shard.streams.get(stream, StreamAccount()) for shard in self._shards.values())
            ledger = close_stream(ledger, told)
        before = self._ledgers.get(stream, Ledger())
        self._ledgers[stream] = ledger
        self._transitions = self._transitions.plus(before, -1).plus(ledger)

    def _alive_workers(self) -> dict[Stream, WorkerReport]:
        return {s: r for s, r in self._workers.items() if s not in self._dead}

    def _alive_shards(self) -> dict[Epoch, ShardReport]:
        return {s: r for s, r in self._shards.items() if s not in self._dead_shards}

    def _priorities(self) -> LogHistogram:
        told = [report.diagnostics.priorities for report in self._alive_shards().values()]
        return functools.reduce(LogHistogram.merged, told, LogHistogram())

    def _over_items(self, name: str) -> float:
        """A diagnostic of the shards, each weighing as much as it holds; nan with no item."""
        held = [report for report in self._alive_shards().values() if report.counters.size]
        weighed = sum(getattr(report.diagnostics, name) * report.counters.size for report in held)
        return _share(weighed, sum(report.counters.size for report in held))

    def _newer_map(self, generation: int) -> ShardMap | None:
        return self._shard_map if self._shard_map.generation > generation else None


def _drained(waiting: Episodes | list[Any]) -> list[Any]:
    taken = list(waiting)
    waiting.clear()
    return taken


def _quantiles(name: str, histogram: CountHistogram | LogHistogram) -> dict[str, Any]:
    return {f"{name}_p50": histogram.quantile(0.5), f"{name}_p95": histogram.quantile(0.95)}


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
