"""Rewards as the learner sees them, and values that no learner may see.

One NaN or infinity in replay ends in NaN weights, so each step is looked through.
"""

from __future__ import annotations

import numpy as np


def scaled_reward(raw_reward: np.ndarray, scale: float, clip: float | None) -> np.ndarray:
    """`[N]` float32: the raw reward times `scale`, then limited to `[-clip, clip]`."""
    reward = raw_reward if scale == 1.0 else raw_reward * scale
    if clip is not None:
        reward = np.clip(reward, -clip, clip)
    return reward.astype(np.float32)


def find_bad(
    reward: np.ndarray, obs_t: np.ndarray, next_obs: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """Which envs gave a NaN or infinity, and where.

    reward: `[N]` float; where rewards are clipped the raw one, as clipping hides an
      infinity, else the scaled one, as the cast to float32 can make one.
    obs_t, next_obs: `[N, *shape]`, often one array.

    Returns `[N]` bool and "reward" or "observation" (the reward first, where both are bad); None
    and "" if nothing is bad.
    """
    bad_reward = nonfinite_rows(reward)
    bad_obs = nonfinite_rows(obs_t)
    if next_obs is not obs_t:
        bad_obs = _either(bad_obs, nonfinite_rows(next_obs))
    if bad_reward is None and bad_obs is None:
        return None, ""
    what = "observation" if bad_reward is None else "reward"
    return _either(bad_reward, bad_obs), what


def nonfinite_rows(values: np.ndarray) -> np.ndarray | None:
    """`[N]` bool of the rows with a NaN or infinity, None where there is none."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    return ~np.isfinite(values).reshape(len(values), -1).all(axis=1)


def _either(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return b if a is None else a if b is None else a | b
