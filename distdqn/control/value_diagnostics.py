"""Whether the learned values can be true: what a run's Q-values are held against.

Two yardsticks: the discounted return that is realised from where a value was given, and
the largest return that any policy could have, `r_max / (1 - discount)`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

_STATE = ("reward_abs_max", "announced", "q_abs_max", "q_start_mean", "return_start_mean")
_TOLERANCE = 0.01  # values that converge to the bound itself waver about it


class ValueDiagnostics:
    """What has been seen of values and rewards, over a whole run.

    discount: of one step; without one, or with 1, there is no bound.

    reward_abs_max: largest so far.  announced: whether soft divergence was said.
    q_abs_max: largest |q(s, a)| of the actions learned from; NaN before any, infinite once a value
      was not finite.
    q_bound: r_max / (1 - discount) with r_max the largest absolute reward of one step, after
      scaling and clipping; NaN until one was other than 0.
    soft_divergence: whether q_abs_max exceeds the bound by more than 1 percent, None without
      either: values that no policy can realise although the parameters stay finite. van Hasselt et
      al. 2018, "Deep reinforcement learning and the deadly triad" (arXiv:1812.02648).
    q_start_mean, return_start_mean: of the newest evaluation, means over its episodes of max_a
      q(s_0, a) and of the discounted return then realised (up to the first lost life, where one
      terminates). The first above the second is overestimation. Episodes cut by
      `eval.max_episode_steps` count with the return so far, which leaves out what the value
      promises beyond.
    """

    def __init__(self, discount: float | None):
        ahead = 0.0 if discount is None else 1.0 - discount
        self._horizon = 1.0 / ahead if ahead > 0.0 else math.nan
        self.reward_abs_max, self.announced = 0.0, False
        self.q_abs_max = self.q_start_mean = self.return_start_mean = math.nan

    @property
    def q_bound(self) -> float:
        return self.reward_abs_max * self._horizon if self.reward_abs_max else math.nan

    @property
    def soft_divergence(self) -> bool | None:
        if math.isnan(self.q_bound) or math.isnan(self.q_abs_max):
            return None
        return self.q_abs_max > self.q_bound * (1.0 + _TOLERANCE)

    def note_rewards(self, reward_abs_max: float) -> None:
        """reward_abs_max: largest absolute reward that a worker has seen so far."""
        self.reward_abs_max = max(self.reward_abs_max, reward_abs_max)

    def note_values(self, q_abs_max: float) -> None:
        """q_abs_max: of a learner so far; NaN where it has none yet."""
        self.q_abs_max = float(np.fmax(self.q_abs_max, q_abs_max))

    def note_evaluation(self, q_start_mean: float, return_start_mean: float) -> None:
        """The newest evaluation takes the place of the one before."""
        self.q_start_mean, self.return_start_mean = q_start_mean, return_start_mean

    def announcement(self) -> str:
        """One line when the values first diverge softly, else empty."""
        if self.announced or not self.soft_divergence:
            return ""
        self.announced = True
        return (
            f"soft divergence: |q| has reached {self.q_abs_max:.4g}, more than any policy can get, "
            f"r_max / (1 - discount) = {self.q_bound:.4g}; should it keep growing, lower "
            "--learner.learning-rate, raise --learner.target-period or take --learner.double true"
        )

    def get_state(self) -> dict[str, Any]:
        """Plain values, for a run that goes on later."""
        return {name: getattr(self, name) for name in _STATE}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `get_state()`; nothing is announced twice."""
        vars(self).update({name: state[name] for name in _STATE})
