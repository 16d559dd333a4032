"""Returns and lengths of the episodes that a vector env plays.

Counts whole games and raw rewards, before scaling, clipping and ends at lost lives; the
length counts only steps that are transitions, the return also what a press of FIRE gave.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from distdqn.types import Step


@dataclasses.dataclass(frozen=True, slots=True)
class Episode:
    """One finished episode.

    env: which of the vector env's.
    episode_return: undiscounted sum of its raw rewards.
    length: its number of steps.
    truncated: it was cut off rather than terminated.
    """

    env: int
    episode_return: float
    length: int
    truncated: bool


class EpisodeTracker:
    """Adds up the running episode of each env.

    An episode that saw a NaN or infinite value has no return: it is not reported.
    """

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def update(self, step: Step) -> list[Episode]:
        """Episodes that ended in this step, by env."""
        self._returns += step.raw_reward
        if step.bad_what:
            self._returns[step.bad] = np.nan
        self._lengths += step.valid
        if not step.ended.any():
            return []
        episodes = [
            Episode(i, float(self._returns[i]), int(self._lengths[i]), bool(step.truncated[i]))
            for i in np.flatnonzero(step.ended & np.isfinite(self._returns)).tolist()
        ]
        self.drop(step.ended)
        return episodes

    def drop(self, mask: np.ndarray) -> None:
        """Forgets the running episodes of the envs in `mask` `[N]` bool: they were reset."""
        self._returns[mask] = 0.0
        self._lengths[mask] = 0
