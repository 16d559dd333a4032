"""A scripted stepper, a network and a rollout over them, for tests of acting.

Every observation is `[env, number]` with a number that never repeats, every reward 1.
"""

from __future__ import annotations

import numpy as np
import torch
from step_parts import make_step
from torch import nn

from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.types import ObservationSpec, WeightSnapshot, WeightsVersion


class FakeStepper:
    """Episodes of `length` steps. style: "within" resets in the step that ends one, "next
    step" by the step after it; "together": `reset_envs` can only reset all envs.

    bad: {(env, vector step from 1): "reward" or "observation"}.
    mask: `[A]` bool of the actions always allowed.
    life: every so many steps of an episode a life is lost, which ends none.
    """

    num_actions = 3
    resets_singly = True

    def __init__(
        self,
        num_envs,
        length=10**9,
        style="within",
        bad=None,
        mask=None,
        life=10**9,
        stack=1,
        padding="zero",
    ):
        self.observation = ObservationSpec((2,), "float32", stack=stack, padding=padding)
        self.life = life
        self.num_envs, self.length, self.style, self.bad = num_envs, length, style, bad or {}
        self.action_mask = None if mask is None else np.tile(mask, (num_envs, 1))
        self.number = self.steps = 0
        self.ages = np.zeros(num_envs, int)
        self.waits = np.zeros(num_envs, bool)
        self.seed, self.actions, self.resets = None, [], []

    def observe(self):
        self.number += 1
        return np.array([[env, self.number] for env in range(self.num_envs)], np.float32)

    def reset(self, seed=None):
        self.seed = seed
        self.obs = self.observe()
        return self.obs

    def reset_envs(self, mask):
        self.resets.append(mask.tolist())
        mask = np.ones_like(mask) if self.style == "together" else mask
        self.obs = np.where(mask[:, None], self.observe(), self.obs)
        self.ages[mask] = 0
        return self.obs, mask

    def step(self, actions):
        self.steps += 1
        self.actions.append(actions.tolist())
        valid = ~self.waits
        self.ages = np.where(valid, self.ages + 1, 0)
        ended = self.ages == self.length
        life_lost = valid & ~ended & (self.ages % self.life == 0)
        starts = life_lost | (~valid if self.style == "next step" else ended)
        raw_reward, obs_t, bad_what = np.ones(self.num_envs), self.observe(), ""
        bad = np.zeros(self.num_envs, bool)
        for env in range(self.num_envs):
            if what := self.bad.get((env, self.steps), ""):
                bad[env], bad_what = True, what
                (raw_reward if what == "reward" else obs_t)[env] = np.nan
        self.waits, self.obs = ended & (self.style == "next step"), obs_t
        if self.style != "next step" and ended.any():
            self.obs = np.where(ended[:, None], self.observe(), obs_t)
            self.ages[ended] = 0
        return make_step(
            obs_t,
            r_t=raw_reward.astype(np.float32),
            raw_reward=raw_reward,
            terminated=ended | life_lost,
            ended=ended,
            restarted=ended & (self.style != "next step"),
            starts=starts,
            valid=valid,
            next_obs=self.obs,
            bad=bad,
            bad_what=bad_what,
            action_mask_t=self.action_mask,
            next_action_mask=self.action_mask,
        )


class Linear(nn.Module):
    """`q[a] = w[a] * obs[1]`; refuses to see a NaN."""

    def __init__(self, weights=(0.0, 1.0, 0.0)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(weights))

    def forward(self, obs):
        assert torch.isfinite(obs).all()
        return obs[:, 1:] * self.w


def make_rollout(
    stepper, network=None, epsilon=0.0, epsilons=None, worker=3, incarnation=2, **settings
):
    settings = {"n_step": 1, "discount": 0.5, "block_transitions": 4, "seed": 1} | settings
    epsilons = epsilons or (lambda env_steps: np.full(stepper.num_envs, epsilon))
    network = network or Linear()
    return Rollout(stepper, network, RolloutSettings(**settings), epsilons, worker, incarnation)


def snapshot(online, counter=1, target=None, env_steps=0):
    if target is not None:
        target = np.array(target, np.float32)
    version = WeightsVersion(1, counter)
    return WeightSnapshot(version, version, env_steps, np.array(online, np.float32), target)


def rows(block):
    """(env, source number, arrival number, r_t, discount_t) of each transition."""
    return [
        (int(tm1[0]), tm1[1], t[1], r, discount)
        for tm1, t, r, discount in zip(
            block.frames[block.tm1], block.frames[block.t], block.r_t, block.discount_t, strict=True
        )
    ]
