"""Use layers of your own below the Q-values.

    python own_torso.py

The same in the shell, here in this folder:

    distdqn train --preset cartpole --network.torso own_torso:residual

A torso is named `module:function`. The function gets the space of one observation and returns
a pair (module, width): the module maps observations `[B, ...]` to features `[B, width]`. They
come as floats, an image of bytes scaled to [0, 1], a Discrete observation one-hot, a Dict or
Tuple as one flat vector. distdqn puts the head on top, linear or dueling as `network.dueling`
says. The module is made anew in each process from the same seed; buffers that change in a
forward pass (batch normalisation) are refused, LayerNorm is the remedy.
"""

import argparse
import math

import gymnasium
import torch
from torch import nn

import distdqn

WIDTH = 64


class Residual(nn.Module):
    """x + f(x), with f of two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def residual(observation_space: gymnasium.Space) -> tuple[nn.Module, int]:
    """Two residual blocks on a flat observation."""
    size = math.prod(observation_space.shape or ())
    blocks = Residual(WIDTH), Residual(WIDTH), nn.ReLU()
    return nn.Sequential(nn.Flatten(), nn.Linear(size, WIDTH), *blocks), WIDTH


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--total-env-steps", type=int, default=100_000)
    parser.add_argument("--mode", default="async")
    arguments = parser.parse_args()
    config = distdqn.load_config(
        preset="cartpole",
        values={
            "total_env_steps": arguments.total_env_steps,
            "mode": arguments.mode,
            "network.torso": "own_torso:residual",
            "network.dueling": True,
        },
    )
    summary = distdqn.train(config)
    print(f"mean return {summary.best_eval_return_mean:.1f} with {config.network.torso}")


if __name__ == "__main__":
    main()
