"""MinAtar games: Atari on a 10 x 10 grid.

Young and Tian 2019 (arXiv:1903.03176): six actions whatever the game uses, sticky actions
0.1, difficulty ramping, no time limit. The package's own Gymnasium envs draw with seaborn;
these need numpy alone.
"""

import contextlib
import importlib
import logging
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
PIXELS = 20  # width of a drawn cell

# Black, then one colour for each channel; where several are set the last one shows.
PALETTE = np.array(
    [
        (0, 0, 0), (77, 175, 255), (255, 214, 64), (150, 110, 30), (96, 200, 96), (240, 80, 70),
        (200, 120, 255), (255, 150, 40), (90, 230, 220), (255, 140, 190), (245, 245, 245),
    ],
    np.uint8,
)  # fmt: skip


def register() -> None:
    """Registers `MinAtar/<Game>-v0` with Gymnasium, in place of the package's own.
    Raises ImportError: the package is not installed."""
    with _quiet():
        importlib.import_module("minatar")
    for game in GAMES:
        env_id = f"MinAtar/{game.title().replace('_', '')}-v0"
        gymnasium.registry.pop(env_id, None)
        gymnasium.register(
            env_id,
            entry_point="distdqn.envs.minatar:MinAtarEnv",
            kwargs={"game": game},
            order_enforce=False,  # a wrapper that would cost a tenth of a step
        )


class MinAtarEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One game.

    Observation: `[10, 10, C]` bool, one channel for each kind of thing.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        game: str,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """game: one of `GAMES`.
        sticky_action_prob: of the action before being repeated.
        difficulty_ramping: the game becomes faster, where it knows how.
        """
        with _quiet():
            from minatar import Environment

        self._game = Environment(game, sticky_action_prob, difficulty_ramping)
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Discrete(self._game.num_actions())
        shape = tuple(self._game.state_shape())
        self.observation_space = gymnasium.spaces.Box(0, 1, shape, np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game; `seed` seeds sticky actions and the game itself."""
        if seed is not None:
            self._game.seed(seed)
            self._game.last_action = 0  # sticky: it would reach over from the game before
        self._game.reset()
        return self._game.state(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward, terminated = self._game.act(action)
        return self._game.state(), reward, terminated, False, {}

    def render(self) -> Any:
        """`[200, 200, 3]` uint8."""
        state = self._game.state()
        colours = (state * np.arange(1, state.shape[2] + 1)).max(axis=2)
        return PALETTE[colours].repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the warning that the package logs where seaborn is missing.

    The handler keeps `logging` from setting up one of its own for it.
    """
    root, handler = logging.getLogger(), logging.NullHandler()
    before = logging.root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
        root.removeHandler(handler)
