"""Rewards and ends as the learner sees them.

Rewards are scaled and clipped, lost lives end episodes, and FIRE is pressed where these
start. One NaN or infinity in replay ends in NaN weights, so each step is looked through.
"""

from collections.abc import Mapping
from typing import Any

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
    looked_at = [(reward, "reward"), (obs_t, "observation")]
    if next_obs is not obs_t:
        looked_at.append((next_obs, "observation"))
    found = [(bad, what) for x, what in looked_at if (bad := nonfinite_rows(x)) is not None]
    if not found:
        return None, ""
    return np.logical_or.reduce([bad for bad, _ in found]), found[0][1]


def nonfinite_rows(values: np.ndarray) -> np.ndarray | None:
    """`[N]` bool of the rows with a NaN or infinity, None where there is none."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    return ~np.isfinite(values).reshape(len(values), -1).all(axis=1)


class Lives:
    """Lives left in N games, and in which of them the coming step presses FIRE.

    The env is not reset where a life is lost: what ends there is the learner's episode, the
    game goes on. Envs say how many lives are left in `info["lives"]`. A life is lost where
    the number has fallen and is not 0: games that have none left end by themselves, some only
    a few frames later (as ale-py and the wrappers of Stable-Baselines3 have it).

    firing: `[N]` bool of the envs in which FIRE replaces the coming action; a shared
      constant where that is none.
    """

    def __init__(
        self, num_envs: int, terminal_on_life_loss: bool = False, fire_action: int | None = None
    ) -> None:
        """terminal_on_life_loss: lost lives count; otherwise none ever does.
        fire_action: number of the action to press at each start, None for no press.
        """
        self._counts, self._fire_action = terminal_on_life_loss, fire_action
        self._lives = np.zeros(num_envs, np.int64)
        self._none = np.zeros(num_envs, bool)
        self._none.setflags(write=False)
        self.firing = self._none

    def begin(self, info: Mapping[str, Any], mask: np.ndarray) -> None:
        """Games begin in the envs in `mask` `[N]` bool; `info` is of their reset."""
        if self._counts:
            self._lives = np.where(mask, self._read(info), self._lives)
        if self._fire_action is not None:
            self.firing = self.firing | mask

    def pressed(self, actions: np.ndarray) -> np.ndarray:
        """`[N]` actions with FIRE where it is due."""
        if self._fire_action is None or self.firing is self._none:
            return actions
        return np.where(self.firing, self._fire_action, actions)

    def lost(self, info: Mapping[str, Any], over: np.ndarray) -> np.ndarray:
        """`[N]` bool of the envs that lost a life in the step that gave `info`.

        over: `[N]` bool of the envs whose lives tell nothing: their game ended in the
          step, or the step was only a reset.
        """
        self.firing = self._none
        if not self._counts:
            return self._none
        before, self._lives = self._lives, self._read(info)
        lost = (self._lives < before) & (self._lives > 0) & ~over
        if self._fire_action is not None and lost.any():
            self.firing = lost
        return lost

    def _read(self, info: Mapping[str, Any]) -> np.ndarray:
        """`[N]` lives; as before where `info` does not say."""
        if "lives" not in info:
            return self._lives
        return np.where(info.get("_lives", True), info["lives"], self._lives)
