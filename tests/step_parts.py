"""A `Step` of which only what a test is about is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from distdqn.types import Step


def make_step(obs_t: np.ndarray, **fields: Any) -> Step:
    """Valid, unrewarded and without an end, unless `fields` say otherwise."""
    no, zeros = np.zeros(len(obs_t), bool), np.zeros(len(obs_t))
    plain: dict[str, Any] = {
        "r_t": zeros.astype(np.float32),
        "raw_reward": zeros,
        "valid": ~no,
        "next_obs": obs_t,
        "action_mask_t": None,
        "next_action_mask": None,
    }
    plain |= dict.fromkeys(("terminated", "truncated", "ended", "restarted", "starts", "bad"), no)
    plain["bad_what"] = "reward" if "bad" in fields else ""
    return Step(obs_t=obs_t, **{**plain, **fields})
