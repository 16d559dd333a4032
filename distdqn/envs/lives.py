"""Lost lives as ends of episodes, and FIRE at their start.

The env is not reset where a life is lost: what ends there is the learner's episode, the
game goes on. Envs say how many lives are left in `info["lives"]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Lives:
    """Lives left in N games, and in which of them the coming step presses FIRE.

    A life is lost where the number has fallen and is not 0: games that have none left
    end by themselves, some only a few frames later (as ale-py and the wrappers of
    Stable-Baselines3 have it).

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
        given = info.get("lives")
        if given is None:
            return self._lives
        present = info.get("_lives")
        return np.where(True if present is None else present, given, self._lives)
