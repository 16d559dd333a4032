"""Exact solutions of an environment by its transition table.

Nothing here is sampled or learned: this is what learned values are held against.
`q*` are action values, and `r`, `p` rewards and probabilities of outcomes `[S, A, K]`.

    q*(s, a) = sum_k p_k (r_k + discount [not terminated_k] max_b q*(s'_k, b))

Sutton & Barto 2018, equation 3.20; the maximum is over the actions that the env allows.
"""

import numpy as np

from distdqn.envs.tables import TransitionTable

NO_LIMIT_STEPS = 1_000  # of an episode where the env itself sets no limit

_TIE = 1e-9  # values of one size that rounding alone has set apart


def optimal_values(
    table: TransitionTable, discount: float, tolerance: float = 1e-12, max_sweeps: int = 1_000_000
) -> np.ndarray:
    """`q* [S, A]` by value iteration, Sutton & Barto 2018, equation 4.10 for actions.

    Starts from zeros and ends with the first sweep that changes no value by more than
    `tolerance`; what is left of the error is then at most that times
    discount / (1 - discount). Values of actions that are not allowed are right too.

    Raises:
      RuntimeError: not within `max_sweeps`; with a discount of 1 rewards may never end.
    """
    expected_reward = (table.probabilities * table.rewards).sum(axis=-1)
    goes_on = table.probabilities * ~table.terminated
    q = np.zeros_like(expected_reward)
    for _ in range(max_sweeps):
        value = np.where(table.allowed, q, -np.inf).max(axis=1)
        swept = expected_reward + discount * (goes_on * value[table.next_states]).sum(axis=-1)
        change = np.abs(swept - q).max()
        q = swept
        if change <= tolerance:
            return q
    raise RuntimeError(
        f"value iteration must end within {max_sweeps} sweeps, the last still changed a value "
        f"by {change:.3g}; take a discount below 1, got {discount:g}"
    )


def reachable_pairs(table: TransitionTable) -> np.ndarray:
    """`[S, A]` bool: allowed actions of states in which an episode can go on.

    A state is reached from the first ones by allowed actions and outcomes that do not
    terminate. One that is entered only by terminating (a hole, a goal) is no source of a
    transition, so nothing is learned there.
    """
    reached = table.initial > 0
    goes_on = (table.probabilities > 0) & ~table.terminated & table.allowed[:, :, None]
    frontier = reached
    while frontier.any():
        next_states = table.next_states[frontier][goes_on[frontier]]
        frontier = np.zeros_like(reached)
        frontier[next_states] = True
        frontier &= ~reached
        reached = reached | frontier
    return reached[:, None] & table.allowed


def greedy_policy(q: np.ndarray, allowed: np.ndarray, tie: float = 0.0) -> np.ndarray:
    """`[S]` the best allowed action of each state; of equal ones the first.

    tie: values this close to the best count as equal to it.
    """
    assert q.shape == allowed.shape, f"q {q.shape} for a mask {allowed.shape}"
    masked = np.where(allowed, q, -np.inf)
    return np.argmax(masked >= masked.max(axis=1, keepdims=True) - tie, axis=1)


def optimal_policy(q: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """`[S]` the greedy policy of exact values, whose ties rounding must not decide."""
    return greedy_policy(q, allowed, _TIE)


def expected_return(table: TransitionTable, policy: np.ndarray) -> float:
    """Expected undiscounted return of one episode under `policy [S]`, in raw rewards.

    An episode ends with a terminating outcome or after the env's time limit
    (`NO_LIMIT_STEPS` where it has none). Finite-horizon policy evaluation, the backward
    recursion of Sutton & Barto 2018, equation 4.5, with one value per remaining step. Of
    an env that pays 1 for success and else 0 this is the probability of success.
    """
    assert policy.shape == (table.num_states,), f"a policy of shape {policy.shape}"
    states = np.arange(table.num_states)
    probabilities = table.probabilities[states, policy]  # [S, K]
    next_states = table.next_states[states, policy]
    goes_on = probabilities * ~table.terminated[states, policy]
    expected_reward = (probabilities * table.raw_rewards[states, policy]).sum(axis=1)
    value = np.zeros(table.num_states)
    for _ in range(table.max_episode_steps or NO_LIMIT_STEPS):
        value = expected_reward + (goes_on * value[next_states]).sum(axis=1)
    return float(table.initial @ value)


def weighted_value_error(q: np.ndarray, q_star: np.ndarray, weights: np.ndarray) -> float:
    """Sum of mu(s, a) (q* - q)^2, Sutton & Barto 2018, equation 9.1 for action values.

    weights: mu `[S, A]`, a distribution over the pairs that count.
    """
    assert q.shape == q_star.shape == weights.shape, (q.shape, q_star.shape, weights.shape)
    return float((weights * np.square(q_star - q)).sum())


def visiting_frequency(visits: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """`[S, A]` the share of each pair in the visits to `pairs [S, A]` (bool).

    Raises:
      ValueError: none of the pairs was ever visited.
    """
    counted = np.where(pairs, visits, 0)
    if not counted.any():
        raise ValueError("visits must hold at least one of the pairs, all are 0")
    return counted / counted.sum()
