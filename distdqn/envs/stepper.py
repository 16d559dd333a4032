"""One view of every vector env, whatever its autoreset mode.

`Step.obs_t` is always what the action led to; where the reset observation appears
depends on the mode that the env declares in `metadata["autoreset_mode"]`:

    mode        end of an episode at step k           step k + 1
    DISABLED    obs_t final, next_obs reset (here)    acts on next_obs
    SAME_STEP   obs_t from info["final_obs"]          acts on next_obs
    NEXT_STEP   obs_t final, next_obs the same        ignores the action, is not valid, and
                                                      arrives at the reset observation

A lost life may end an episode and begin the next without any of this: `learner_view.py`.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium.vector import AutoresetMode

from distdqn import errors
from distdqn.envs.actions import ActionMasks, discrete_actions
from distdqn.envs.failures import env_error, explained
from distdqn.envs.learner_view import Lives, find_bad, nonfinite_rows, scaled_reward
from distdqn.envs.observations import ObservationEncoder, stacked_space
from distdqn.types import Step

DEFAULT_FPS = 30  # of a video where the env does not say

_Source = tuple[np.ndarray, "np.ndarray | None"]  # observations [N, *shape], masks [N, A]


class VectorStepper:
    """Steps a vector env and tells transitions from resets.

    Life: `reset()`, then `step(actions)` for ever; `reset_envs` when an env must start
    anew, for instance after a bad value; `close()`.

    num_envs: N.  num_actions: A; actions count from 0.
    action_start: the env's own number for action 0.
    observation: how the single frames that it gives are stored, and how many of them
      others are to stack.
    observation_space: of one observation as a network sees it; the env's own where nothing
      is stacked.
    action_mask: `[N, A]` bool of the actions allowed now, None if the env never says.
    resets_singly: `reset_envs` resets exactly the envs that it is asked to; otherwise
      it resets all of them.
    """

    def __init__(
        self,
        vector_env: Any,
        label: str,
        reward_scale: float = 1.0,
        reward_clip: float | None = None,
        frame_stack: int = 1,
        stack_padding: Literal["zero", "repeat"] = "zero",
        lives: Lives | None = None,
    ) -> None:
        """Takes over a `gymnasium.vector.VectorEnv`, or what answers as one.

        label: names the environment in messages.
        reward_scale, reward_clip, frame_stack, stack_padding: see `EnvConfig`.
        lives: None where lost ones do not count and nothing is pressed at starts.

        Raises UnsupportedSpaceError: of its action or observation space; EnvError: it does not
        declare a known autoreset mode.
        """
        self.num_envs = int(vector_env.num_envs)
        actions, space = vector_env.single_action_space, vector_env.single_observation_space
        self.num_actions, self.action_start = discrete_actions(actions, label)
        self._encoder = ObservationEncoder(space, label, frame_stack, stack_padding)
        self.observation = self._encoder.spec
        self.observation_space = stacked_space(space, frame_stack)
        self._lives = lives or Lives(self.num_envs)
        self._masks = ActionMasks(self.num_envs, self.num_actions, label)
        self._vector_env, self._label = vector_env, label
        self._mode = _autoreset_mode(vector_env, label)
        self.resets_singly = self._mode is AutoresetMode.DISABLED
        self._resets_later = self._mode is AutoresetMode.NEXT_STEP
        self._action_dtype = actions.dtype
        self._reward_scale, self._reward_clip = reward_scale, reward_clip
        self._every, self._none = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        self._every.flags.writeable = self._none.flags.writeable = False  # they are shared
        self._resetting = self._none  # [N] NEXT_STEP: the coming step only resets these
        self._obs: np.ndarray | None = None  # [N, *shape] what the next action starts from
        self.action_mask: np.ndarray | None = None

    @property
    def action_names(self) -> tuple[str, ...]:
        """The env's own words for its actions (see `actions.action_names`), else their numbers."""
        meanings = getattr(self._vector_env, "get_action_meanings", None)
        names = () if meanings is None else tuple(meanings())
        if len(names) == self.num_actions:
            return names
        return tuple(str(self.action_start + action) for action in range(self.num_actions))

    @property
    def frames_per_second(self) -> int:
        """Of a video at the env's own pace."""
        return int(self._vector_env.metadata.get("render_fps") or DEFAULT_FPS)

    def reset(self, seed: int | Sequence[int] | None = None) -> np.ndarray:
        """Resets every env.

        seed: one number, from which each env gets a seed of its own, or N numbers;
          None goes on with the envs' own generators.

        Returns `[N, *shape]` first observations. Raises EnvFailure: the env raised, gave a NaN or
        infinity, or allows no action.
        """
        kwargs = {} if seed is None else {"seed": self._env_seeds(seed)}
        obs, info = self._reset_env(**kwargs)
        self._require_finite(obs)
        self._obs, self.action_mask = obs, self._masks.first(info)
        self._lives.begin(info, self._every)
        self._resetting = self._none
        return obs

    def reset_envs(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resets the envs in `mask`; all of them where the vector env cannot do less.

        mask: `[N]` bool.

        Returns `[N, *shape]` the observations that the next actions start from, and `[N]` bool,
        which envs were reset. Raises EnvFailure: as for `reset`.
        """
        assert self._obs is not None, "reset_envs needs a reset before it"
        assert mask.shape == (self.num_envs,) and mask.dtype == bool, mask
        if not self.resets_singly and mask.any():
            self.reset()
            return self._obs, self._every
        if mask.any():
            self._obs, self.action_mask = self._restarted((self._obs, self.action_mask), mask)
            self._require_finite(self._obs[mask])
        return self._obs, mask

    def step(self, actions: np.ndarray) -> Step:
        """Steps every env with `actions [N]`, integers from 0.

        Raises RuntimeError: called before `reset`; EnvFailure: the env raised, broke its
        observation space, or allows no action.
        """
        if self._obs is None:
            raise RuntimeError("step needs a reset before it: the envs have no state yet")
        assert actions.shape == (self.num_envs,), actions.shape
        resetting, firing = self._resetting, self._lives.firing
        arrived, raw_reward, terminated, truncated, info = self._step_env(actions)
        ended = terminated | truncated
        lost = self._lives.lost(info, ended | resetting)
        if resetting is not self._none:
            self._lives.begin(info, resetting)
        (obs_t, mask_t), following = self._settle(arrived, info, terminated, ended)
        self._obs, self.action_mask = following
        r_t = scaled_reward(raw_reward, self._reward_scale, self._reward_clip)
        reward = r_t if self._reward_clip is None else raw_reward
        bad, bad_what = find_bad(reward, obs_t, self._obs)
        return Step(
            obs_t=obs_t,
            r_t=r_t,
            raw_reward=raw_reward,
            terminated=terminated | lost,
            truncated=truncated,
            ended=ended,
            valid=~(resetting | firing),
            next_obs=self._obs,
            restarted=self._none if self._resets_later else ended,
            starts=(resetting if self._resets_later else ended) | lost | firing,
            bad=self._none if bad is None else bad,
            bad_what=bad_what,
            action_mask_t=mask_t,
            next_action_mask=self.action_mask,
        )

    def render(self) -> np.ndarray:
        """`[H, W, 3]` uint8 picture of the first env.

        Raises MissingExtraError: the package that draws is not installed; EnvError: the env raised,
        or gave no such picture.
        """
        with explained(self._label, "render"):
            frame = np.asarray(self._vector_env.render()[0])
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise errors.EnvError(
                f"environment {self._label!r} rendered {frame.dtype}{list(frame.shape)}, an RGB "
                "picture uint8[H, W, 3] is needed"
            )
        return frame

    def close(self) -> None:
        """Closes the envs; what they raise then changes nothing any more."""
        with contextlib.suppress(Exception):
            self._vector_env.close()

    def _step_env(self, actions: np.ndarray) -> tuple[Any, ...]:
        """Observation, raw reward, ends and info; envs that only reset gave neither."""
        pressed = self._lives.pressed(actions) + self.action_start
        try:
            obs, reward, terminated, truncated, info = self._vector_env.step(
                np.asarray(pressed, self._action_dtype)
            )
            reward = np.array(reward, np.float64).reshape(self.num_envs)
            terminated = np.array(terminated, bool).reshape(self.num_envs)
            truncated = np.array(truncated, bool).reshape(self.num_envs)
        except errors.EnvError:
            raise
        except Exception as error:
            raise env_error(self._label, "step", error) from error
        if self._resetting is not self._none:
            terminated, truncated = terminated & ~self._resetting, truncated & ~self._resetting
            reward = np.where(self._resetting, 0.0, reward)
        truncated &= ~terminated
        return self._encoder.encode(obs, self.num_envs), reward, terminated, truncated, info

    def _reset_env(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        with explained(self._label, "reset"):
            obs, info = self._vector_env.reset(**kwargs)
        return self._encoder.encode(obs, self.num_envs), info

    def _require_finite(self, obs: np.ndarray) -> None:
        """A reset is the remedy for a bad value: what it gives must be good."""
        if nonfinite_rows(obs) is not None:
            raise errors.EnvFailure(
                f"environment {self._label!r} gave a NaN or infinite observation in reset"
            )

    def _settle(
        self, obs: np.ndarray, info: dict[str, Any], terminated: np.ndarray, ended: np.ndarray
    ) -> tuple[_Source, _Source]:
        """What was arrived at, and what the next actions start from."""
        self._resetting = self._none
        any_ended = bool(ended.any())
        if any_ended and self._mode is AutoresetMode.SAME_STEP:
            restarted = obs, self._masks.read(info)
            self._lives.begin(info, ended)
            final_masks = self._masks.read_final(info, terminated | ~ended)
            finals = self._encoder.encode_final(info, ended)
            return _merged(restarted, ended, finals, final_masks), restarted
        arrived = obs, self._masks.read(info, terminated)
        if any_ended and self._mode is AutoresetMode.DISABLED:
            return arrived, self._restarted(arrived, ended)
        if any_ended:
            self._resetting = ended
        return arrived, arrived

    def _restarted(self, source: _Source, mask: np.ndarray) -> _Source:
        """`source` with the rows in `mask` reset."""
        reset_obs, info = self._reset_env(options={"reset_mask": mask.copy()})
        self._lives.begin(info, mask)
        return _merged(source, mask, reset_obs[mask], self._masks.read(info, ~mask))

    def _env_seeds(self, seed: int | Sequence[int]) -> int | list[int]:
        """What the vector env takes: N seeds, or one where it cannot take more."""
        seeds_singly = getattr(self._vector_env, "seeds_singly", False)
        if seeds_singly and isinstance(seed, Sequence):
            assert len(seed) == self.num_envs, (len(seed), self.num_envs)
            return list(seed)
        # Not seed + i, as Gymnasium has it: workers with neighbouring seeds would share envs.
        state = np.random.SeedSequence(seed).generate_state(self.num_envs)
        # 31 bits, as some envs keep their seed in a C int.
        seeds = [int(word >> 1) for word in state]
        return seeds if seeds_singly else seeds[0]


def _autoreset_mode(vector_env: Any, label: str) -> AutoresetMode:
    """The mode that a vector env declares.
    Raises EnvError: it declares none, or one that is not known here."""
    declared = vector_env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(declared)
    except ValueError as error:
        known = ", ".join(mode.value for mode in AutoresetMode)
        raise errors.EnvError(
            f"environment {label!r} declares the autoreset mode {declared!r} in "
            f"metadata['autoreset_mode'] of its vector env; distdqn knows {known}"
        ) from error


def _merged(
    source: _Source, mask: np.ndarray, obs: np.ndarray, masks: np.ndarray | None
) -> _Source:
    """`source` with other observations and action masks in the rows in `mask [N]`.

    obs: `[E, *shape]` of these alone.  masks: `[N, A]`, None for an env without.
    """
    merged, before = source[0].copy(), source[1]
    merged[mask] = obs
    if before is None or masks is None:
        return merged, None
    return merged, np.where(mask[:, None], masks, before)
