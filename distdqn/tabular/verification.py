"""Makes the planned runs and measures what they learned.

They are made one after another by the ordinary `train`. A Ray session that the caller
has opened serves all of them; without one each run starts its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.api import train
from distdqn.reporting.summary import Summary
from distdqn.tabular.counterexamples import baird_features, baird_sweeps, tsitsiklis_van_roy_sweeps
from distdqn.tabular.measure import measure_outcome, measure_run, solve
from distdqn.tabular.result import PlannedRun, Result, Verification
from distdqn.tabular.rows import outcome_line, result_line
from distdqn.tabular.triad import SETTINGS, planned

Say = Callable[[str], None]

BAIRD_SWEEPS = 5_000
TSITSIKLIS_VAN_ROY_SWEEPS = 100
TSITSIKLIS_VAN_ROY_DISCOUNTS = (0.7, 0.8, 0.9, 0.99)
_BAIRD: Mapping[str, Mapping[str, Any]] = {
    "semi-gradient": {},
    "semi-gradient, target network held 10 sweeps": {"target_period": 10},
    "semi-gradient, target network held 1,000 sweeps": {"target_period": 1_000},
    "residual gradient": {"gradient": "residual"},
}


def verify(
    folder: str | Path,
    runs: Sequence[PlannedRun],
    ablation_seeds: Sequence[int] = (),
    seed: int = 1,
    say: Say = print,
) -> Verification:
    """Makes the runs in `folder` and measures what they learned.

    ablation_seeds: of the runs of each setting in `triad.SETTINGS`; empty leaves them out.
    seed: of every other run.
    say: takes a line for each run that is done.

    Raises:
      DistDQNError: a run fails.  KeyboardInterrupt, SystemExit: one was interrupted.
    """
    began = time.monotonic()
    ablation = [(setting, s) for setting in SETTINGS for s in ablation_seeds]
    total = len(runs) + len(ablation)
    results, outcomes = [], []
    say(f"{total} runs, in {folder}")
    for run in runs:
        results.append(_result(run, str(folder), seed))
        say(f"{len(results)}/{total} {result_line(results[-1])}")
    for setting, ablation_seed in ablation:
        summary = _train(planned(setting, ablation_seed), str(folder), ablation_seed)
        outcomes.append(measure_outcome(setting, summary.to_json()))
        say(f"{len(runs) + len(outcomes)}/{total} {outcome_line(outcomes[-1])}")
    baird, weights = divergence()
    return Verification(
        folder=str(folder),
        wall_s=time.monotonic() - began,
        results=results,
        outcomes=outcomes,
        baird=baird,
        tsitsiklis_van_roy=weights,
    )


def divergence() -> tuple[dict[str, np.ndarray], dict[float, np.ndarray]]:
    """Curves of the counterexamples.

    Returns:
      Baird's max |v| `[sweeps + 1]` by variant, and the weight of Tsitsiklis and Van Roy
      `[sweeps + 1]` by discount.
    """
    features = baird_features()
    baird = {
        name: np.abs(baird_sweeps(BAIRD_SWEEPS, **options) @ features.T).max(axis=1)
        for name, options in _BAIRD.items()
    }
    return baird, {
        discount: tsitsiklis_van_roy_sweeps(TSITSIKLIS_VAN_ROY_SWEEPS, discount)
        for discount in TSITSIKLIS_VAN_ROY_DISCOUNTS
    }


def _result(run: PlannedRun, folder: str, seed: int) -> Result:
    config = run.config(folder, seed)
    solution = solve(config.env, config.learner.discount)
    summary = _train(run, folder, seed)
    learned = measure_run(summary.run_folder, solution)
    return Result(run, config, summary.to_json(), solution, learned)


def _train(run: PlannedRun, folder: str, seed: int) -> Summary:
    """Trains; what interrupted the run ends the verification too."""
    summary = train(run.config(folder, seed), display=False)
    if summary.stopped_by == "SIGINT":
        raise KeyboardInterrupt
    if summary.exit_status:
        raise SystemExit(summary.exit_status)
    return summary
