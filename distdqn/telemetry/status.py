"""What is told of a run, each metric declared once.

A declaration holds a metric's name, meaning, and where it is shown; TensorBoard and
`metrics.jsonl`, the display, and the summary all read it. A new metric is one more field.
"""

import dataclasses
import functools
import math
from typing import Any

from distdqn.telemetry.ledger import Ledger

AT_END = "the run ended first"
"""Why transitions are refused at every run's end: no fault."""


def metric(
    meaning: str, default: Any = math.nan, *, tag: str = "", shown: str = "", form: str = ""
) -> Any:
    """Declares a field.

    tag: its name in TensorBoard and `metrics.jsonl`; after a last "/" comes the field's own.
    shown: where the display shows it, as "row: label"; row "trouble" shows what is not 0.
    form: format of the number, or "clock" for seconds; whole numbers as they are and others
      with one digit without.
    """
    row, _, label = shown.partition(": ")
    told = {"meaning": meaning, "tag": tag, "row": row, "label": label, "form": form}
    return dataclasses.field(default=default, metadata=told)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """What both the status and the summary of a run tell; nan where it is not known.

    Rates and evaluations are the newest ones in a status; in a summary they are those of the
    whole run and of the fresh greedy episodes at its end.
    """

    env_steps: int = metric("agent steps that yield a transition", 0, shown="steps: env")
    gradient_steps: int = metric("updates", 0, shown="steps: updates")
    compiled: bool = metric("whether updates are compiled by now", False, shown="steps: ")
    train_return_mean: float = metric("of the last 100 counted episodes", shown="return: training")
    eval_return_mean: float = metric(
        "greedy episodes with the last weights", shown="return: evaluation"
    )
    best_eval_return_mean: float = metric(
        "with the best weights; in a summary of episodes that did not choose them",
        shown="return: best",
    )
    env_steps_per_s: float = metric("", tag="charts/", shown="now: env steps/s", form=",.0f")
    gradient_steps_per_s: float = metric("", tag="charts/", shown="now: updates/s", form=",.0f")
    samples_per_insert: float = metric(
        "samples / (inserts - min_size_to_sample)",
        tag="charts/",
        shown="replay: samples/insert",
        form=",.2f",
    )
    replay_size: int = metric(
        "items held by all shards", 0, tag="replay/size", shown="replay: items"
    )
    shard_items: tuple[int, ...] = metric("items held, by shard", (), shown="replay: in a shard")
    q_start_mean: float = metric(
        "mean over an evaluation's episodes of the largest value at the start",
        tag="values/q_start",
        shown="values: q at start",
    )
    return_start_mean: float = metric(
        "and of the discounted return then realised",
        tag="values/return_start",
        shown="values: realised",
    )
    q_abs_max: float = metric(
        "largest absolute value of the actions learned from, in the whole run",
        tag="values/",
        shown="values: max |q|",
    )
    q_bound: float = metric(
        "r_max / (1 - discount), the largest that any policy can have", tag="values/"
    )
    soft_divergence: bool | None = metric(
        "whether q_abs_max exceeds q_bound by more than 1 percent; None where one is not known",
        None,
        tag="values/",
    )
    learner_wait_fraction: float = metric(
        "share of its time that the learner waited for data",
        tag="charts/",
        shown="waiting: learner",
        form=".0%",
    )
    worker_wait_fraction: float = metric(
        "share of their time that the workers waited",
        tag="charts/",
        shown="waiting: workers",
        form=".0%",
    )
    staleness_p50: float = metric(
        "weight versions between the newest and the one that acted, as blocks are accepted",
        tag="charts/staleness",
        shown="waiting: staleness",
        form=",.0f",
    )
    staleness_p95: float = metric("of the same", form=",.0f")
    worker_restarts: int = metric("", 0, shown="trouble: worker restarts")
    shard_restarts: int = metric("", 0, shown="trouble: shard restarts")
    learner_restarts: int = metric("", 0, shown="trouble: learner restarts")
    items_lost: int = metric("with a shard that died", 0, shown="trouble: items lost")
    transitions_refused_by: dict[str, int] = dataclasses.field(default_factory=dict)
    """By cause; empty where none was refused."""
    td_error_abs_p50: float = metric(
        "median absolute TD error of the newest minibatches", tag="losses/"
    )
    td_error_abs_p95: float = metric("95th percentile of the same", tag="losses/")
    td_error_abs_max: float = metric("largest of the same", tag="losses/")
    priority_p50: float = metric("median priority of the items held", tag="replay/")
    priority_p95: float = metric("95th percentile of the same", tag="replay/")
    stale_fraction_10: float = metric(
        "share of the items held acted with weights over 10 versions old", tag="replay/"
    )
    stale_fraction_100: float = metric("the same, over 100 versions old", tag="replay/")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunStatus(Figures):
    """A run at one moment. Rates are per second over the last seconds."""

    state: str = "starting"
    elapsed_s: float = metric("since the run began, its start included", 0.0, form="clock")
    total_env_steps: int = 0
    workers_target: int = 0
    workers_alive: int = metric("", 0, tag="workers/count", shown="alive: workers")
    shards_target: int = 0
    shards_alive: int = metric("that have reported and have not died", 0, shown="alive: shards")
    epsilon: float = metric(
        "mean epsilon over the envs", tag="charts/", shown="now: epsilon", form=",.3f"
    )
    learning_rate: float = metric("", tag="charts/")
    priority_max: float = metric("largest priority of the items held", tag="replay/")
    refused_priorities: int = metric(
        "negative or not finite", 0, shown="trouble: priorities refused"
    )
    transitions: Ledger = dataclasses.field(default_factory=Ledger)
    td_loss: float = metric("mean loss of the newest minibatches", tag="losses/")
    q_values: float = metric("mean value of the actions of the newest minibatches", tag="losses/")
    grad_norm: float = metric("gradient norm of the newest minibatches", tag="losses/")

    @property
    def refused_by_fault(self) -> int:
        """Transitions refused for other reasons than that the run ended."""
        return self.transitions.refused - self.transitions_refused_by.get(AT_END, 0)

    @property
    def eta_s(self) -> float:
        """Seconds until `total_env_steps` at the present rate; nan where unknown."""
        if not self.env_steps_per_s > 0:
            return math.nan
        return (self.total_env_steps - self.env_steps) / self.env_steps_per_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationFigures:
    """What is written down of greedy episodes with one snapshot of the weights."""

    episodic_return: float = metric("mean of the raw returns", tag="eval/")
    return_std: float = metric("standard deviation of the raw returns", tag="eval/")
    return_min: float = metric("lowest raw return", tag="eval/")
    return_max: float = metric("highest raw return", tag="eval/")
    episodic_length: float = metric("mean, in steps", tag="eval/")
    episodes: int = metric("how many these are", 0, tag="eval/")


DECLARED = {field.name: field.metadata for field in dataclasses.fields(RunStatus)}


@functools.cache
def tags(kind: type) -> dict[str, str]:
    """TensorBoard tag to field, of a dataclass of metrics."""
    shown = {field.name: field.metadata.get("tag", "") for field in dataclasses.fields(kind)}
    return {tag + name if tag.endswith("/") else tag: name for name, tag in shown.items() if tag}


SCALARS = tags(RunStatus)
"""Those of a status. The two return charts are written per episode."""


def scalars(figures: RunStatus | EvaluationFigures) -> dict[str, float]:
    """The finite scalars of `figures` by TensorBoard tag."""
    kind: type = type(figures)
    values = {tag: getattr(figures, name) for tag, name in tags(kind).items()}
    return {t: float(v) for t, v in values.items() if v is not None and math.isfinite(v)}


def shared(source: Any, kind: type = RunStatus) -> dict[str, Any]:
    """What `source` tells under the names of the metrics of `kind`, a dataclass."""
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: getattr(source, name) for name in names if hasattr(source, name)}
