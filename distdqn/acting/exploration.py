"""Epsilon-greedy acting and the Ape-X ladder.

`epsilon_greedy` is the policy as a function; `EpsilonGreedy` is the same policy with
its random numbers drawn for many vector steps at once, which a worker's loop needs:
two generator calls per step would cost as much as a small network.
"""

import numpy as np

STEPS_PER_DRAW = 256


def ladder(num_envs_total: int, base: float, alpha: float) -> np.ndarray:
    """`[N]` float64, `eps_i = base^(1 + alpha i / (N - 1))`, from most to least exploring.

    Horgan et al. 2018 (Ape-X), section 4.1, with base 0.4 and alpha 7. A single env gets `base`.

    num_envs_total: N, over all workers, at least 1.
    base: in (0, 1].
    alpha: at least 0.

    Raises ValueError: an argument is out of its range.
    """
    if num_envs_total < 1 or not 0 < base <= 1 or not alpha >= 0:
        raise ValueError(
            "an epsilon ladder needs num_envs_total >= 1, 0 < base <= 1 and alpha >= 0, got "
            f"num_envs_total {num_envs_total}, base {base}, alpha {alpha}"
        )
    rungs = np.arange(num_envs_total, dtype=np.float64)
    return base ** (1.0 + alpha * rungs / max(num_envs_total - 1, 1))


def epsilon_greedy(
    q_values: np.ndarray,
    epsilons: np.ndarray,
    rng: np.random.Generator,
    action_mask: np.ndarray | None = None,
) -> np.ndarray:
    """`[N]` int64 actions: uniform with probability epsilon, else of the highest value.

    q_values: `[N, A]` float; the first of equal values is the greedy one.
    epsilons: `[N]` float in [0, 1].
    action_mask: `[N, A]` bool, True where allowed; both choices keep to it. A row that
      allows nothing counts as unknown and allows everything: it belongs to an
      observation whose action is ignored (a final one before an autoreset).
    """
    explores, choices = rng.random((2, len(q_values)))
    return _select(q_values, explores < epsilons, choices, action_mask)


class EpsilonGreedy:
    """`epsilon_greedy` for a loop: uniform numbers for `STEPS_PER_DRAW` steps at once.

    Without masks a call costs three small numpy operations. The generator should be
    its own: it is drawn from at every `STEPS_PER_DRAW`-th call only.
    """

    def __init__(self, num_envs: int, num_actions: int, rng: np.random.Generator):
        self._shape = (2, STEPS_PER_DRAW, num_envs)
        self._num_actions, self._rng = num_actions, rng
        self._next = STEPS_PER_DRAW

    def select(
        self, q_values: np.ndarray, epsilons: np.ndarray, action_mask: np.ndarray | None = None
    ) -> np.ndarray:
        """`[N]` int64 actions; arguments as those of `epsilon_greedy`."""
        if self._next == STEPS_PER_DRAW:
            self._explores, self._choices = self._rng.random(self._shape)
            self._random_actions = (self._choices * self._num_actions).astype(np.int64)
            self._next = 0
        step = self._next
        self._next += 1
        explores = self._explores[step] < epsilons
        if action_mask is not None:
            return _select(q_values, explores, self._choices[step], action_mask)
        actions = q_values.argmax(1)
        np.copyto(actions, self._random_actions[step], where=explores)
        return actions


def _select(
    q_values: np.ndarray, explores: np.ndarray, choices: np.ndarray, action_mask: np.ndarray | None
) -> np.ndarray:
    """Actions given which envs explore `[N]` and a uniform number in [0, 1) for each.

    The product of a double below 1 and a count rounds to below the count, so the
    random action is always in range.
    """
    num_actions = q_values.shape[1]
    if action_mask is None:
        return np.where(explores, (choices * num_actions).astype(np.int64), q_values.argmax(1))
    assert action_mask.shape == q_values.shape, (action_mask.shape, q_values.shape)
    allowed = action_mask | ~action_mask.any(1, keepdims=True)  # [N, A]
    ranks = allowed.cumsum(1)  # the k-th allowed action has rank k, from 1
    picks = (choices * ranks[:, -1]).astype(np.int64)  # [N]
    uniform = (ranks > picks[:, None]).argmax(1)
    greedy = np.where(allowed, q_values, -np.inf).argmax(1)
    return np.where(explores, uniform, greedy)
