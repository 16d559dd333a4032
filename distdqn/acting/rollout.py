"""Acts in a vector env and seals blocks of transitions.

    network -> epsilon-greedy -> stepper.step -> n-step windows -> TransitionBlock
     ^   ^                        |       |
     |   +------- stacks <--------+    episodes
    snapshots

Nothing here waits and nothing knows Ray: the caller decides how long to act, with which
weights, and where a block goes. The stepper gives single frames and the windows take
them; stacks are for the network alone. A transition is `stepped` when its action was taken and
`collected` when it leaves the n-step windows.

Symbols: `N` envs.
"""

import dataclasses
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from distdqn.acting.acting_network import ActingNetwork
from distdqn.acting.exploration import EpsilonGreedy
from distdqn.acting.frames import FrameStack
from distdqn.acting.n_step import NStepAccumulator
from distdqn.errors import EnvFailure
from distdqn.telemetry.reports import WorkerReport
from distdqn.types import Step, TransitionBlock, WeightSnapshot, WeightsVersion

MAX_EPISODES = 10_000  # kept for `drain_episodes`, the newest
BAD_STEP_PERIOD = 1_000  # steps of an env within which a second bad one is a failure


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """How a rollout acts and what it seals.

    n_step, discount: of the windows.
    block_transitions: over all envs.  max_block_age_s: see `Rollout`.
    seed: with the worker and its incarnation it seeds envs and exploration, so that a worker
      that comes back does not repeat itself.
    with_priorities: blocks carry |TD error| of the weights at their sealing, by double
      Q-learning if `double`.
    """

    n_step: int
    discount: float
    block_transitions: int
    max_block_age_s: float = math.inf
    seed: int = 0
    with_priorities: bool = False
    double: bool = False


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
    """Adds up the running episode of each env: whole games and raw rewards, before scaling,
    clipping and ends at lost lives.

    The length counts only steps that are transitions, the return also what a press of FIRE
    gave. An episode that saw a NaN or infinite value has no return: it is not reported.
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


class Rollout:
    """Takes env steps and gives blocks, each a function of the seed and what it is told.

    Life: construction resets the envs; `collect` again and again, `set_weights` and
    `set_clock` between; `flush` at the end. Until weights come, the network's own initial
    parameters act.

    A block is sealed when `block_transitions` steps have n - 1 vector steps behind them (episodes
    that end in these add their tails, and all envs step together, so it may hold somewhat more), or
    when its oldest step is older than `max_block_age_s` and any window has closed.

    collected: transitions that left the windows, `refused` included.
    refused: of these, those thrown away since a NaN or infinity touched their window.
    note: which env gave the first of these, and what it was; "" while there is none.
    stepped: valid env steps taken, those still in windows included.
    reward_abs_max: largest absolute reward, scaled and clipped, in a valid step; no bad one.
    env_s, inference_s: seconds spent in `stepper.step` and in choosing actions.
    """

    def __init__(
        self,
        stepper: Any,
        network: nn.Module,
        settings: RolloutSettings,
        epsilons: Callable[[int], np.ndarray],
        worker: int = 0,
        incarnation: int = 1,
    ):
        """Takes over the stepper and the network (whose parameters become views).

        stepper: an `envs.VectorStepper`, or what answers as it does.
        epsilons: env-step clock -> `[N]` float; asked once per change of the clock.
        worker, incarnation: sign the blocks.

        Raises EnvFailure: an env failed in its reset.
        """
        num_envs, observation = stepper.num_envs, stepper.observation
        rng = np.random.Generator(np.random.PCG64([settings.seed, worker, incarnation]))
        self._stepper, self._settings = stepper, settings
        self._worker, self._incarnation = worker, incarnation
        self._acting = ActingNetwork(network, num_envs, settings.double)
        self._stack = FrameStack(num_envs, observation)
        self._accumulator = NStepAccumulator(
            num_envs, settings.n_step, settings.discount, observation, stepper.num_actions
        )
        self._tracker = EpisodeTracker(num_envs)
        self._episodes: deque[Episode] = deque(maxlen=MAX_EPISODES)
        self._last_bad: dict[int, int] = {}  # step of each env that gave a NaN or infinity
        self._rows: list[tuple[float, WeightsVersion]] = []  # per row of the accumulator
        self._sequence = self.collected = self.refused = self.stepped = self._vector_steps = 0
        self.note = ""
        self.reward_abs_max = self.env_s = self.inference_s = 0.0
        self._clock, self._epsilons_at = -1, epsilons
        self.set_clock(0)
        frames = stepper.reset(seed=int(rng.integers(2**31)))
        self._obs = self._stack.begin(frames)  # [N, *obs_shape]
        self._policy = EpsilonGreedy(num_envs, stepper.num_actions, rng)
        self._accumulator.begin(frames, stepper.action_mask)

    def set_weights(self, snapshot: WeightSnapshot) -> None:
        """Acts with these weights from now on. Its clock counts too.
        Raises ValueError: the vector belongs to another network."""
        self._acting.set(snapshot)
        self.set_clock(snapshot.env_steps)

    def set_clock(self, env_steps: int) -> None:
        """Moves the global env-step clock of the exploration forward, never back."""
        if env_steps > self._clock:
            self._clock = env_steps
            self._epsilons = np.asarray(self._epsilons_at(env_steps), np.float64)
            assert self._epsilons.shape == (self._stepper.num_envs,), self._epsilons.shape

    def collect(self, max_transitions: int, until: float) -> TransitionBlock | None:
        """Acts until a block is due, the allowance is used up, or the time has come.

        max_transitions: valid env steps that this call may take. Envs step together,
          so in the last vector step surplus ones are dropped: they are in no block and
          in no count, and close the window before them with gamma^k.
        until: `time.monotonic()` after which no further vector step begins.

        Returns a block, or None. With an allowance of 0 it takes no step but still gives a block
        that has become due by age. Raises EnvFailure: an env failed, or gave a second NaN or
        infinity within 1,000 steps.
        """
        taken = 0
        while True:
            now = time.monotonic()
            if self._is_due(now) and (block := self._seal()) is not None:
                return block
            if taken >= max_transitions or now >= until:
                return None
            taken += self._step(now, max_transitions - taken)

    def collect_round(
        self, vector_steps: int, max_transitions: int, flush: bool
    ) -> TransitionBlock | None:
        """A fixed number of vector steps, whatever the clock says, and all that they closed.

        vector_steps: fewer are taken only where `max_transitions` is used up before.
        max_transitions: as in `collect`.
        flush: closes the open windows too.

        Returns a block, or None where no window closed. Raises as `collect`.
        """
        taken = 0
        for _ in range(vector_steps):
            if taken < max_transitions:
                taken += self._step(0.0, max_transitions - taken)
        return self._seal(flush)

    def flush(self) -> TransitionBlock | None:
        """All that is left as one block, open windows closed; None if that is nothing."""
        return self._seal(flush=True)

    def drain_episodes(self) -> list[Episode]:
        """Episodes that ended since the last call, the newest 10,000 of them."""
        episodes = list(self._episodes)
        self._episodes.clear()
        return episodes

    def report(self, **others: Any) -> WorkerReport:
        """Totals since the rollout began, and the episodes since the last report.

        others: fields that it does not know, or not alone.
        """
        first_env = self._worker * self._stepper.num_envs
        own: dict[str, Any] = {
            "stepped": self.stepped,
            "collected": self.collected,
            "refused": self.refused,
            "refused_by": dict(self._accumulator.refused_by),
            "note": self.note,
            "episodes": tuple(
                (first_env + e.env, e.episode_return, e.length) for e in self.drain_episodes()
            ),
            "env_s": self.env_s,
            "inference_s": self.inference_s,
            "reward_abs_max": self.reward_abs_max,
            "epsilon": float(self._epsilons.mean()),
            "pid": os.getpid(),
        }
        return WorkerReport(self._worker, self._incarnation, **own | others)

    def _is_due(self, now: float) -> bool:
        if self._accumulator.num_ready >= self._settings.block_transitions:
            return True
        return bool(self._rows) and now - self._rows[0][0] > self._settings.max_block_age_s

    def _step(self, now: float, allowance: int) -> int:
        """One vector step; returns how many valid env steps it kept."""
        started = time.perf_counter()
        q_values = self._acting.q_values(self._obs)
        actions = self._policy.select(q_values, self._epsilons, self._stepper.action_mask)
        chosen = time.perf_counter()
        step = self._stepper.step(actions)
        self.env_s += time.perf_counter() - chosen
        self.inference_s += chosen - started
        self._vector_steps += 1
        if episodes := self._tracker.update(step):
            self._episodes.extend(episodes)
        valid, taken = _within(allowance, step.valid)
        if not np.abs(step.r_t).max() <= self.reward_abs_max:  # seldom; true of NaN too
            rewards = np.abs(step.r_t[valid & ~step.bad])
            self.reward_abs_max = float(rewards.max(initial=self.reward_abs_max))
        if valid is not step.valid:
            step = dataclasses.replace(step, valid=valid)
        if np.count_nonzero(step.bad):
            step = self._without_bad(step)
        self._accumulator.add(actions, step)
        self._rows.append((now, self._acting.version))
        self._obs = self._stack.push(step.next_obs, step.starts)
        self.stepped += taken
        return taken

    def _without_bad(self, step: Step) -> Step:
        """`step` with its bad envs reset; where the stepper cannot reset them alone, the
        others' episodes are cut off with them."""
        for env in np.flatnonzero(step.bad).tolist():
            self.note = self.note or self._described(env, step)
            self._note_bad(env, step.bad_what)
        frames, was_reset = self._stepper.reset_envs(step.bad)
        self._tracker.drop(was_reset)
        return dataclasses.replace(
            step,
            next_obs=frames,
            restarted=step.restarted | was_reset,
            starts=step.starts | was_reset,
            next_action_mask=self._stepper.action_mask,
        )

    def _described(self, env: int, step: Step) -> str:
        """Which env gave a bad value, and the value, for the user."""
        value = f"the reward {step.raw_reward[env]:g}"
        if step.bad_what == "observation":
            arrived = step.obs_t[env]
            obs = step.next_obs[env] if np.isfinite(arrived).all() else arrived
            at = tuple(np.argwhere(~np.isfinite(obs))[0].tolist())
            value = f"an observation with {obs[at]:g}" + (f" at {list(at)}" if at else "")
        return (
            f"environment {env} of worker {self._worker} gave {value} in its step "
            f"{self._vector_steps}: transitions that touch it are refused, and the env is reset"
        )

    def _note_bad(self, env: int, what: str) -> None:
        """Raises EnvFailure at the second bad step of an env within `BAD_STEP_PERIOD`."""
        now, before = self._vector_steps, self._last_bad.get(env)
        self._last_bad[env] = now
        if before is not None and now - before <= BAD_STEP_PERIOD:
            raise EnvFailure(
                f"environment {env} of worker {self._worker} gave a NaN or infinite {what} "
                f"in its step {now}, again within {BAD_STEP_PERIOD:,} steps (before in "
                f"step {before}): its transitions cannot be trusted"
            )

    def _seal(self, flush: bool = False) -> TransitionBlock | None:
        """The closed windows as a block; None if there is none.

        What was refused then counts all the same, and the next block says so.
        """
        block = self._accumulator.emit(flush, [version for _, version in self._rows])
        self.refused += block.refused
        self.collected += block.refused + block.num_transitions
        del self._rows[: len(self._rows) - self._accumulator.num_rows]
        if not block.num_transitions:
            return None
        priorities = None
        if self._settings.with_priorities:
            priorities = self._acting.priorities(block, self._stepper.observation)
        self._sequence += 1
        return dataclasses.replace(
            block,
            worker=self._worker,
            incarnation=self._incarnation,
            sequence=self._sequence - 1,
            collected=self.collected,
            refused=self.refused,
            priorities=priorities,
        )


def _within(allowance: int, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """The first `allowance` of the `valid [N]` steps, and how many these are."""
    count = int(np.count_nonzero(valid))
    if count <= allowance:
        return valid, count
    return valid & (valid.cumsum() <= allowance), allowance
