"""Forbid actions: an environment says in `info["action_mask"]` what is allowed.

    python action_masks.py

The game is Nim against a player who moves at random: take from one heap as many as you like,
and take the last one. A mask is given in reset and in each step, as Gymnasium's own
environments give it; what it forbids is neither played nor counted as a future value.
"""

import argparse
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import distdqn

HEAPS = (3, 4, 5)
LARGEST = max(HEAPS)


class Nim(gymnasium.Env):
    """Action `heap * LARGEST + n` takes `n + 1` from a heap. A game won is worth 1."""

    action_space = spaces.Discrete(len(HEAPS) * LARGEST)
    observation_space = spaces.MultiDiscrete([size + 1 for size in HEAPS])

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.heaps = np.array(HEAPS)
        return self.heaps.copy(), {"action_mask": self._allowed()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._take(int(action))
        won = not self.heaps.any()
        if not won:
            self._take(int(self.np_random.choice(np.flatnonzero(self._allowed()))))
        # At the end nobody acts any more: a mask that allows nothing is right there.
        info = {"action_mask": self._allowed()}
        return self.heaps.copy(), float(won), not self.heaps.any(), False, info

    def _allowed(self) -> np.ndarray:
        """`[A]` int8, 1 where allowed."""
        return (np.arange(1, LARGEST + 1) <= self.heaps[:, None]).astype(np.int8).ravel()

    def _take(self, action: int) -> None:
        heap, n = divmod(action, LARGEST)
        assert n + 1 <= self.heaps[heap], "the mask forbids this"
        self.heaps[heap] -= n + 1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-env-steps", type=int, default=40_000)
    parser.add_argument("--mode", default="async")
    arguments = parser.parse_args()
    values = {
        "total_env_steps": arguments.total_env_steps,
        "mode": arguments.mode,
        "learner.learning_rate": 1e-3,
        "learner.target_period": 100,
    }
    summary = distdqn.train(distdqn.load_config(values=values), make_env=Nim)

    policy = distdqn.load_policy(summary.run_folder)
    env = policy.make_env(Nim)
    obs, info = env.reset(seed=0)
    terminated, reward = False, 0.0
    while not terminated:
        action = policy(obs, action_mask=info["action_mask"])
        heap, n = divmod(action, LARGEST)
        print(f"{obs}: take {n + 1} from heap {heap}")
        obs, reward, terminated, _, info = env.step(action)
    print("won" if reward else "lost", f"; of all games {summary.eval_return_mean:.0%}", sep="")


if __name__ == "__main__":
    main()
