"""Train on an environment of your own, here a lift with a Dict observation.

    python own_environment.py                 the environment comes from a function
    python own_environment.py --registered    Gymnasium knows it by an id

A registered environment needs no script; this does the same in the shell, here in this folder:

    distdqn train --env.id own_environment:Lift-v0 --total-env-steps 40000
"""

import argparse
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

import distdqn

FLOORS = 6


class Lift(gymnasium.Env):
    """A lift that opens its door at the floors that have called it, as fast as it can.

    Any observation of Box, Discrete, MultiBinary, MultiDiscrete, and Dict or Tuple of these
    will do; actions must be Discrete.
    """

    # `action_names` and `render_modes` are for videos alone.
    metadata = {
        "action_names": ["up", "down", "open"],
        "render_modes": ["rgb_array"],
        "render_fps": 4,
    }
    action_space = spaces.Discrete(3)
    observation_space = spaces.Dict(
        {"floor": spaces.Discrete(FLOORS), "calls": spaces.MultiBinary(FLOORS)}
    )

    def __init__(self, num_calls: int = 3, render_mode: str | None = None) -> None:
        self.num_calls, self.render_mode = num_calls, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)  # makes self.np_random
        self.floor = int(self.np_random.integers(FLOORS))
        self.calls = np.zeros(FLOORS, np.int8)
        self.calls[self.np_random.choice(FLOORS, self.num_calls, replace=False)] = 1
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        reward = -0.05
        if action == 2:
            reward += float(self.calls[self.floor])
            self.calls[self.floor] = 0
        else:
            self.floor = int(np.clip(self.floor + (1 if action == 0 else -1), 0, FLOORS - 1))
        # Terminated: nothing more is to come, so nothing more is expected. A time limit is no
        # such end: it truncates, below and in the registration.
        return self._observe(), reward, not self.calls.any(), False, {}

    def render(self) -> Any:
        picture = np.full((FLOORS, 1, 3), 40, np.uint8)
        picture[self.calls == 1] = (240, 160, 60)
        picture[self.floor] //= 2
        picture[self.floor, :, 1] += 100
        return picture[::-1].repeat(40, axis=0).repeat(80, axis=1)

    def _observe(self) -> dict[str, Any]:
        return {"floor": self.floor, "calls": self.calls.copy()}


if "Lift-v0" not in gymnasium.registry:
    gymnasium.register("Lift-v0", entry_point="own_environment:Lift", max_episode_steps=50)


def make_env() -> gymnasium.Env:
    """Makes one environment; distdqn makes as many as it needs, and seeds them."""
    return gymnasium.wrappers.TimeLimit(Lift(render_mode="rgb_array"), max_episode_steps=50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--registered", action="store_true")
    parser.add_argument("--total-env-steps", type=int, default=40_000)
    parser.add_argument("--mode", default="async")
    arguments = parser.parse_args()
    values: dict[str, Any] = {
        "total_env_steps": arguments.total_env_steps,
        "mode": arguments.mode,
        "learner.learning_rate": 1e-3,
        "learner.target_period": 100,
    }
    if arguments.registered:
        # The module before the colon is imported in every process: it registers the id.
        config = distdqn.load_config(values=values | {"env.id": "own_environment:Lift-v0"})
        summary = distdqn.train(config)
    else:
        summary = distdqn.train(distdqn.load_config(values=values), make_env=make_env)
    print(f"mean return {summary.eval_return_mean:.2f}, 2.6 is about the best")


if __name__ == "__main__":
    main()
