"""What the updates so far have shown: scalars, TD errors, divergence.

For display: no update depends on it, and a learner's state leaves it out.
"""

import collections
import math

import numpy as np

_RECENT_SUPERBATCHES = 100
_DIVERGED = (
    "TD errors became NaN or infinite: the values diverge; lower --learner.learning-rate or "
    "set --learner.max-grad-norm"
)


class Diagnostics:
    """Figures of one learner's whole life.

    non_finite: TD errors so far that were NaN or infinite.
    q_abs_max: largest absolute Q-value so far of the actions learned from, NaN before any,
      infinite once a value was NaN.
    """

    def __init__(self) -> None:
        self._scalars = [math.nan] * 4
        self._recent: collections.deque[np.ndarray] = collections.deque(maxlen=_RECENT_SUPERBATCHES)
        self._warnings: list[str] = []
        self.non_finite = 0
        self.q_abs_max = math.nan

    def note(self, abs_td_errors: np.ndarray, scalars: np.ndarray) -> None:
        """Takes one superbatch's `[K, B]` and `[K, 4]` into account."""
        num_finite = int(np.count_nonzero(np.isfinite(abs_td_errors)))
        if num_finite < abs_td_errors.size and not self.non_finite:
            self.warn(_DIVERGED)
        self.non_finite += abs_td_errors.size - num_finite
        self._recent.append(abs_td_errors[-1].copy())  # a view would keep all K
        self._scalars = scalars[-1].tolist()
        largest = float(scalars[:, 3].max())  # NaN if one is, but no comparison would say so
        if math.isnan(largest):
            largest = math.inf
        if not largest <= self.q_abs_max:
            self.q_abs_max = largest

    def scalars(self) -> dict[str, float]:
        """`td_loss`, `q_values` and `grad_norm` of the last update; NaN before the first."""
        return dict(zip(("td_loss", "q_values", "grad_norm"), self._scalars, strict=False))

    def recent_abs_td_errors(self) -> np.ndarray:
        """`[n B]` float32 of the last minibatch in each of the newest n <= 100 superbatches.

        What learning sees now, not the history; all K minibatches would cost more and say
        no more. May be called from another thread.
        """
        return np.concatenate([np.empty(0, np.float32), *tuple(self._recent)])

    def warn(self, line: str) -> None:
        """A line for `take_warning`."""
        self._warnings.append(line)

    def take_warning(self) -> str:
        """What is to be said, each line once; else empty."""
        return self._warnings.pop(0) if self._warnings else ""
