"""Two small problems on which bootstrapping with approximation diverges.

Every sweep is exact, an expectation over all states: what grows here grows by the update
itself, not by noise, replay or exploration.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

BAIRD_DISCOUNT = 0.99
BAIRD_STEP_SIZE = 0.01
_BAIRD_STATES = 7
BAIRD_SWEEPS = 5_000
TSITSIKLIS_VAN_ROY_SWEEPS = 100
TSITSIKLIS_VAN_ROY_DISCOUNTS = (0.7, 0.8, 0.9, 0.99)
_BAIRD: Mapping[str, Mapping[str, Any]] = {
    "semi-gradient": {},
    "semi-gradient, target network held 10 sweeps": {"target_period": 10},
    "semi-gradient, target network held 1,000 sweeps": {"target_period": 1_000},
    "residual gradient": {"gradient": "residual"},
}


def baird_features() -> np.ndarray:
    """`[7, 8]` features of Baird's star (1995), Sutton & Barto 2018, figure 11.1.

    States 1 to 6 have the value 2 w_i + w_8, state 7 has w_7 + 2 w_8. The target policy
    leads from every state to state 7, all rewards are 0: the true values are 0, and the
    features can represent them.
    """
    features = np.zeros((_BAIRD_STATES, _BAIRD_STATES + 1))
    features[:6, :6] = 2.0 * np.eye(6)
    features[:6, 7] = 1.0
    features[6, 6:] = (1.0, 2.0)
    return features


def baird_initial_weights() -> np.ndarray:
    """`[8]`: all 1, but 10 for w_7, as in Sutton & Barto 2018, figure 11.2."""
    weights = np.ones(_BAIRD_STATES + 1)
    weights[6] = 10.0
    return weights


def baird_sweeps(num_sweeps: int, gradient: str = "semi", target_period: int = 1) -> np.ndarray:
    """`[num_sweeps + 1, 8]` weights before the first and after each expected update.

    gradient: "semi" moves v(s) alone, Sutton & Barto 2018, equation 11.9. "residual" moves
      v(s') too (Baird 1995; there section 11.5), down the true gradient of the squared
      Bellman error, which here has no sampling bias: every state has one successor.
    target_period: v(s') comes from weights that are copied every so many sweeps, the
      target network of DQN; 1 is no target network.
    """
    assert gradient == "semi" or target_period == 1, "residual is through the online weights"
    x, weights = baird_features(), baird_initial_weights()
    x_next = np.broadcast_to(x[6], x.shape)
    history = [weights]
    for sweep in range(num_sweeps):
        if sweep % target_period == 0:
            target_weights = weights
        td_errors = BAIRD_DISCOUNT * x_next @ target_weights - x @ weights  # [7]
        direction = x - BAIRD_DISCOUNT * x_next if gradient == "residual" else x
        weights = weights + BAIRD_STEP_SIZE / _BAIRD_STATES * td_errors @ direction
        history.append(weights)
    return np.array(history)


def tsitsiklis_van_roy_sweeps(
    num_sweeps: int, discount: float, epsilon: float = 0.0, initial_weight: float = 1.0
) -> np.ndarray:
    """`[num_sweeps + 1]` the weight w of Tsitsiklis and Van Roy's w -> 2w example (1996).

    Two states of value w and 2w, all rewards 0; the first leads to the second, the second
    to itself and with probability `epsilon` to the end. Each sweep takes the w that fits
    the bootstrapped values best in the least-squares sense over both states,

        w_{k+1} = discount (6 - 4 epsilon) / 5  w_k

    Sutton & Barto 2018, example 11.1, equation 11.10. It diverges above
    discount = 5 / (6 - 4 epsilon), though no step is ever too long.
    """
    features = np.array([1.0, 2.0])
    next_features = np.array([2.0, 2.0 * (1.0 - epsilon)])
    weights = [initial_weight]
    for _ in range(num_sweeps):
        targets = discount * next_features * weights[-1]
        weights.append(float(features @ targets / (features @ features)))
    return np.array(weights)


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
