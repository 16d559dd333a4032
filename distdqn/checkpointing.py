"""When a run saves, and from what it starts.

The driver turns the learner's flat vectors into parameters by name, without torch, and
keeps the newest checkpoints and the best one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    prune,
    save_checkpoint,
    step_folder,
)
from distdqn.config import Config
from distdqn.parts import Parts
from distdqn.run_folder import RunFolder

Layout = Sequence[tuple[str, Sequence[int]]]

_NOT_SLOTS = ("online", "target", "gradient_steps", "target_copies")


class Checkpointer:
    """Saves one run's checkpoints under its folder.

    keep: newest checkpoints kept besides the best (`checkpoint.keep`).
    """

    def __init__(self, config: Config, parts: Parts, folder: Path):
        self._config, self._parts, self._folder = config, parts, folder
        self._layout: Layout = ()

    def save(self, state: Mapping[str, Any] | None, env_steps: int) -> Path | None:
        """Saves a learner's state as `checkpoints/step_<env_steps>`; None without one."""
        if state is None:
            return None
        self._layout = state["layout"]
        learner = state["learner"]
        checkpoint = Checkpoint(
            online=by_name(learner["online"], self._layout),
            target=by_name(learner["target"], self._layout),
            optimizer={k: v for k, v in learner.items() if k not in _NOT_SLOTS},
            counters={
                "env_steps": env_steps,
                "gradient_steps": learner["gradient_steps"],
                "target_copies": learner["target_copies"],
                "samples": state["samples"],
                "inserts": state["inserts"],
            },
            network=self._network(),
            env_id=self._config.env.id,
        )
        path = save_checkpoint(step_folder(self._folder, env_steps), checkpoint)
        prune(self._folder, self._config.checkpoint.keep)
        return path

    def save_best(self, online: np.ndarray, layout: Layout, env_steps: int) -> Path:
        """Saves weights that evaluated best so far as `best`; they have no optimizer."""
        parameters = by_name(online, layout)
        checkpoint = Checkpoint(
            online=parameters,
            target=parameters,
            optimizer={},
            counters={"env_steps": env_steps},
            network=self._network(),
            env_id=self._config.env.id,
        )
        return save_checkpoint(self._folder / "best", checkpoint)

    def _network(self) -> dict[str, Any]:
        parts, network = self._parts, self._config.network
        return {
            "observation": dataclasses.asdict(parts.observation),
            "num_actions": parts.num_actions,
            "action_start": parts.action_start,
            "torso": network.torso,
            "hidden": list(network.hidden),
            "dueling": network.dueling,
            "custom": parts.make_network is not None,
        }


def by_name(vector: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """The parameters in a flat vector `[P]`, each in its own shape."""
    sizes = [math.prod(shape) for _, shape in layout]
    assert sum(sizes) == len(vector), f"layout of {sum(sizes)} for a vector of {len(vector)}"
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(layout, pieces, strict=True)}


def initial_parameters(config: Config) -> dict[str, np.ndarray] | None:
    """The weights that `init_from` names, by parameter; None for a fresh start.

    Raises RunError or CheckpointError where there are none.
    """
    if config.init_from is None:
        return None
    run = RunFolder.find(config.init_from, config.runs_dir)
    path, _ = find_checkpoint(run.path, config.init_checkpoint)
    return dict(load_checkpoint(path).online)
