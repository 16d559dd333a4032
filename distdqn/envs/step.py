"""What one vector step gave, the same for every autoreset mode.

`obs_t` is what the action led to: the final observation where an episode ended, never
the first one of the next.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One vector step: N transitions, or fewer where some envs were only reset.

    Observations are single frames, whatever is stacked of them later. Arrays may be
    shared between fields and steps: read them, do not write to them.

    obs_t: `[N, *shape]` the observation that the action led to; at the end of an
      episode its final one.
    r_t: `[N]` float32 reward, scaled and then clipped.
    raw_reward: `[N]` float64 reward as the env gave it.
    terminated, truncated: `[N]` bool ends of what the learner takes for an episode; a
      lost life may be terminated.
    ended: `[N]` bool; the env's own episode, a whole game, ended in this step. May be
      set where `valid` is not.
    valid: `[N]` bool; False where the action was not used: the env only reset itself,
      or the step pressed FIRE, whose `raw_reward` still counts for the game.
    next_obs: `[N, *shape]` what the next action is chosen from: `obs_t`, but the first
      observation of the next episode where the env was reset within this step.
    starts: `[N]` bool; `next_obs` is the first frame of an episode and is stacked with
      none before it. Of a lost life it is `obs_t` too: the env was not reset.
    bad: `[N]` bool; a NaN or infinity in the reward, in `obs_t` or in `next_obs`. No
      transition may touch it, and the env is to be reset (`reset_envs`). May be set
      where `valid` is not.
    bad_what: "reward" or "observation" where any is bad, else "".
    action_mask_t, next_action_mask: `[N, A]` bool of the actions allowed in `obs_t` and
      `next_obs`, all True where the env did not say; None if it never does.
    """

    obs_t: np.ndarray
    r_t: np.ndarray
    raw_reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ended: np.ndarray
    valid: np.ndarray
    next_obs: np.ndarray
    starts: np.ndarray
    bad: np.ndarray
    bad_what: str
    action_mask_t: np.ndarray | None
    next_action_mask: np.ndarray | None
