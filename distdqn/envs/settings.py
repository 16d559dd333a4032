"""Which environment, how its observations are stacked and its rewards scaled.

A frozen value that travels to every worker: it names the env, it does not hold it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import gymnasium

MakeEnv = Callable[[], "gymnasium.Env[Any, Any]"]
"""Builds one new environment at each call; distdqn vectorises, seeds and closes it."""


@dataclasses.dataclass(frozen=True)
class AtariSettings:
    """How Atari games are played; replaces what the ids `ALE/<Game>-v5` say.

    backend: "ale", ale-py's own vector env, or "gymnasium", single envs behind Gymnasium's
      AtariPreprocessing. For the same actions both give the same frames, rewards and ends
      where nothing is random.
    frame_skip: emulator frames of one step, the action repeated.
    sticky_actions: probability at each frame that the emulator repeats the action before
      (Machado et al. 2018, section 5.3).
    noop_max: a game begins with 1 to so many frames of no-ops, uniformly; 0: with none.
    size: height and width of a frame.
    grayscale: one channel, without an axis of its own, in place of three.
    max_pool: a frame is the maximum of a step's last two, against flicker.
    terminal_on_life_loss: a lost life is `terminated`; the game goes on.
    full_action_space: all 18 actions in place of those that the game uses.
    fire_on_reset: the first step of a game, and after a lost life where that is
      `terminated`, presses FIRE; ignored by games without it.
    max_frames: emulator frames, no-ops not counted, after which a game is truncated.
    """

    backend: Literal["ale", "gymnasium"] = "ale"
    frame_skip: int = 4
    sticky_actions: float = 0.25
    noop_max: int = 0
    size: int = 84
    grayscale: bool = True
    max_pool: bool = True
    terminal_on_life_loss: bool = False
    full_action_space: bool = False
    fire_on_reset: bool = False
    max_frames: int = 108_000


@dataclasses.dataclass(frozen=True)
class EnvSettings:
    """An environment by name.

    id: a registered Gymnasium id (`CartPole-v1`) or `module:Id-v0`, where importing
      the module registers it. Not used when a `make_env` is given.
    kwargs: constructor arguments, as for `gymnasium.make`.
    reward_scale: factor on every reward.
    reward_clip: `c` limits the scaled reward to `[-c, c]`; None leaves it.
      Scaling comes first, so that the limit is on what the learner sees.
    frame_stack: frames in an observation; None: 4 for ids `ALE/...`, else 1, and 1
      whatever the id when a `make_env` is given.
    stack_padding: what stands for frames before an episode's first, see `ObservationSpec`.
    atari: for ids `ALE/...`; refused if changed for others or when a `make_env` is given.
    """

    id: str
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reward_scale: float = 1.0
    reward_clip: float | None = None
    frame_stack: int | None = None
    stack_padding: Literal["zero", "repeat"] = "zero"
    atari: AtariSettings = dataclasses.field(default_factory=AtariSettings)

    @property
    def is_atari(self) -> bool:
        """Whether the id is of a game that `atari` is about."""
        return self.id.rpartition(":")[2].startswith("ALE/")
