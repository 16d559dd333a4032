"""When a run saves, and from what it starts.

The driver turns the learner's flat vectors into parameters by name, without torch, and
keeps the newest checkpoints and the best one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distdqn.config import Config
from distdqn.files.checkpoint import (
    Checkpoint,
    find_checkpoint,
    newest,
    prune,
    save_checkpoint,
    step_folder,
)
from distdqn.files.replay_files import load_replay, save_replay, saved_up_to
from distdqn.files.run_folder import RunFolder

Layout = Sequence[tuple[str, Sequence[int]]]

_NOT_SLOTS = ("online", "target", "gradient_steps", "target_copies")


class Checkpointer:
    """Saves one run's checkpoints under its folder.

    keep: newest checkpoints kept besides the best (`checkpoint.keep`).
    network: what rebuilds the network, see `Checkpoint`.
    """

    def __init__(self, folder: Path, keep: int, network: Mapping[str, Any], env_id: str):
        self._folder, self._keep = folder, keep
        self._network, self._env_id = network, env_id
        self._entries: dict[int, Mapping[str, Any]] = {}  # of the replay, by shard

    def save(
        self, state: Mapping[str, Any] | None, env_steps: int, prunes: bool = True, **others: Any
    ) -> Path | None:
        """Saves a learner's state as `checkpoints/step_<env_steps>`; None without one.

        prunes: whether older ones go now: not while the run may still be resumed from them.
        others: fields of the `Checkpoint`.
        """
        if state is None:
            return None
        learner = state["learner"]
        counters = {"env_steps": env_steps}
        counters |= {name: learner[name] for name in ("gradient_steps", "target_copies")}
        counters |= {name: state[name] for name in ("samples", "inserts")}
        optimizer = {name: slot for name, slot in learner.items() if name not in _NOT_SLOTS}
        vectors = (learner["online"], learner["target"])
        path = step_folder(self._folder, env_steps)
        self._write(path, vectors, state["layout"], optimizer, counters, **others)
        if prunes:
            self.prune()
        return path

    def prune(self) -> None:
        """Removes all but the newest checkpoints, and what no checkpoint needs."""
        prune(self._folder, self._keep)

    def save_lockstep(
        self,
        state: Mapping[str, Any],
        run_state: Mapping[str, Any],
        shards: Sequence[Callable[..., Any]],
        env_steps: int,
    ) -> None:
        """Saves all that a lockstep run goes on from, at a border.

        state: as for `save`.  run_state: what else there is, but the replay.
        shards: asked for what they added since the last call.
        """
        for index, ask in enumerate(shards):
            previous = self._entries.get(index)
            shard = ask("get_state", *saved_up_to(previous)).get()
            self._entries[index] = save_replay(self._folder, index, shard, previous)
        layout = [[name, list(shape)] for name, shape in state["layout"]]
        replay = list(self._entries.values())
        self.save(state, env_steps, replay=replay, run_state={**run_state, "layout": layout})

    def load_lockstep(self) -> tuple[dict[str, Any], list[str]]:
        """What `save_lockstep` saved, from the run's newest intact checkpoint.

        Returns the run's state with "learner" (of `Learner.get_state`), "shards" (of
        `Replay.get_state`), "layout" and "env_steps" beside, and lines to tell about it.
        Raises CheckpointError where there is none.
        """
        _, checkpoint, warnings = newest(self._folder, resumable=True)
        assert checkpoint.run_state is not None
        layout = checkpoint.run_state["layout"]
        learner = {
            **checkpoint.optimizer,
            "online": _flat(checkpoint.online, layout),
            "target": _flat(checkpoint.target, layout),
            "gradient_steps": checkpoint.counters["gradient_steps"],
            "target_copies": checkpoint.counters["target_copies"],
        }
        self._entries = dict(enumerate(checkpoint.replay))
        shards = [load_replay(self._folder, entry) for entry in checkpoint.replay]
        state = {"learner": learner, "shards": shards, "env_steps": checkpoint.env_steps}
        return {**checkpoint.run_state, **state}, warnings

    def save_best(self, online: np.ndarray, layout: Layout, env_steps: int) -> Path:
        """Saves weights that evaluated best so far as `best`; they have no optimizer."""
        counters = {"env_steps": env_steps}
        return self._write(self._folder / "best", (online, online), layout, {}, counters)

    def _write(
        self,
        path: Path,
        vectors: tuple[np.ndarray, np.ndarray],
        layout: Layout,
        optimizer: Mapping[str, np.ndarray],
        counters: Mapping[str, int | float],
        **others: Any,
    ) -> Path:
        """vectors: online and target parameters."""
        online, target = (by_name(vector, layout) for vector in vectors)
        checkpoint = Checkpoint(
            online, target, optimizer, counters, self._network, self._env_id, **others
        )
        return save_checkpoint(path, checkpoint)


def by_name(vector: np.ndarray, layout: Layout) -> dict[str, np.ndarray]:
    """The parameters in a flat vector `[P]`, each in its own shape."""
    sizes = [math.prod(shape) for _, shape in layout]
    assert sum(sizes) == len(vector), f"layout of {sum(sizes)} for a vector of {len(vector)}"
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {name: piece.reshape(shape) for (name, shape), piece in zip(layout, pieces, strict=True)}


def _flat(arrays: Mapping[str, np.ndarray], layout: Layout) -> np.ndarray:
    """The inverse of `by_name`."""
    return np.concatenate([arrays[name].ravel() for name, _ in layout])


def initial_parameters(config: Config) -> dict[str, np.ndarray] | None:
    """The weights that `init_from` names, by parameter; None for a fresh start.

    Raises RunError or CheckpointError where there are none.
    """
    if config.init_from is None:
        return None
    run = RunFolder.find(config.init_from, config.runs_dir)
    _, checkpoint, _ = find_checkpoint(run.path, config.init_checkpoint)
    return dict(checkpoint.online)
