"""Discrete actions and which of them are allowed.

Inside distdqn an action is a number from 0; only the vector env sees `start`.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from distdqn import errors
from distdqn.errors import shorten


def discrete_actions(space: gymnasium.Space[Any], label: str) -> tuple[int, int]:
    """Number of actions and the env's number for action 0 of a Discrete space.
    Raises UnsupportedSpaceError: any other space."""
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise errors.UnsupportedSpaceError(
            f"environment {label!r} has the action space {shorten(space)}; distdqn learns "
            "one Q-value per action and supports Discrete action spaces only, no continuous, "
            "multi-discrete or composite ones"
        )
    return int(space.n), int(space.start)


def action_names(env: gymnasium.Env[Any, Any]) -> tuple[str, ...]:
    """The words of an env, or of one of its wrappers, for its actions by their numbers.

    Of its method `get_action_meanings()`, as Atari games have it, else
    `metadata["action_names"]`; empty where it has neither, or not as many as actions.
    """
    names = env.metadata.get("action_names", ())
    with contextlib.suppress(AttributeError):
        names = env.get_wrapper_attr("get_action_meanings")()
    named = tuple(map(str, names))
    space = env.action_space
    fits = isinstance(space, gymnasium.spaces.Discrete) and len(named) == space.n
    return named if fits else ()


class ActionMasks:
    """Reads `info["action_mask"]` of a vector env.

    Whether the env gives masks at all is seen at its first reset. From then on a row without one is
    all True, for envs (`info["_action_mask"]` False, as Gymnasium's vector envs mark them) as for
    whole steps; an env that never gives one costs a look into `info`.
    """

    def __init__(self, num_envs: int, num_actions: int, label: str) -> None:
        self._shape, self._label = (num_envs, num_actions), label
        self._given = False

    def first(self, info: Mapping[str, Any]) -> np.ndarray | None:
        """`[N, A]` bool masks after a reset of every env, None for an env without.
        Raises EnvFailure: a mask of another shape, or one that allows nothing."""
        self._given = self._given or "action_mask" in info
        return self.read(info)

    def read(
        self, info: Mapping[str, Any], terminal: np.ndarray | None = None
    ) -> np.ndarray | None:
        """`[N, A]` bool masks, None for an env that gives none.

        terminal: `[N]` bool of the states in which nobody acts: they may allow nothing.

        Raises EnvFailure: a mask of another shape, one that allows nothing, or one where the first
        reset gave none.
        """
        if "action_mask" not in info:
            return np.ones(self._shape, bool) if self._given else None
        if not self._given:
            raise errors.EnvFailure(
                f"environment {self._label!r} gives info['action_mask'] in step but not in reset: "
                "the first action of an episode would ignore it; give it in both"
            )
        mask = self._as_array(info)
        self._require_allowed(mask, terminal)
        return mask

    def read_final(self, info: Mapping[str, Any], terminal: np.ndarray) -> np.ndarray | None:
        """As `read`, for the final observations of a step that has reset its envs."""
        final_info = info.get("final_info")
        return self.read(final_info if isinstance(final_info, Mapping) else {}, terminal)

    def _as_array(self, info: Mapping[str, Any]) -> np.ndarray:
        every = np.ones(self._shape[1], bool)
        present = np.asarray(info.get("_action_mask", np.ones(self._shape[0], bool)), bool)
        given = info["action_mask"]
        if isinstance(given, np.ndarray) and given.dtype != object and given.shape == self._shape:
            return given.astype(bool) | ~present[:, None]
        try:
            pairs = zip(given, present, strict=True)
            mask = np.stack([np.asarray(row, bool) if has else every for row, has in pairs])
        except (ValueError, TypeError):
            mask = None
        if mask is None or mask.shape != self._shape:
            got = "that does not fit" if mask is None else f"of shape {mask.shape[1:]}"
            raise errors.EnvFailure(
                f"environment {self._label!r} must give info['action_mask'] with the shape "
                f"({self._shape[1]},), gave one {got}"
            )
        return mask

    def _require_allowed(self, mask: np.ndarray, terminal: np.ndarray | None) -> None:
        empty = ~mask.any(axis=1)
        if terminal is not None:
            # A maximum over no action would be -inf there, and 0 times -inf is NaN.
            mask[empty & terminal] = True
            empty &= ~terminal
        if empty.any():
            raise errors.EnvFailure(
                f"environment {self._label!r} allows no action: info['action_mask'] of env "
                f"{np.flatnonzero(empty)[0]} is all zero in a state that is not terminal"
            )
