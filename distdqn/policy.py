"""A trained policy from a run's files.

Needs the run's folder alone: no Ray, and no environment unless a network of the user's
own must be told about its observations.
"""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distdqn.config import Config, load_config
from distdqn.envs.make import describe, make_stepper
from distdqn.errors import CheckpointError, ConfigError, RunError
from distdqn.evaluation.play import MAX_ENVS, play_episodes
from distdqn.evaluation.video import record_video
from distdqn.files.checkpoint import Checkpoint, find_checkpoint
from distdqn.files.run_folder import RunFolder
from distdqn.networks.q_network import make_network as make_own_network
from distdqn.plain_json import plain
from distdqn.types import ObservationSpec
from distdqn.weights.flat_parameters import FlatParameters

MakeNetwork = Callable[[Any, int], torch.nn.Module]
MakeEnv = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Policy:
    """Greedy actions and action values of one network.

    network: from `[B, *obs_shape]` to `[B, A]`.
    observation: how one is stored; `obs` must be of its `obs_shape` and dtype.
    num_actions: A.  action_start: the env's own number for its first action.
    """

    network: torch.nn.Module
    observation: ObservationSpec
    num_actions: int
    action_start: int = 0

    def __call__(self, obs: Any, action_mask: Any = None) -> int | np.ndarray:
        """The best action, as the env numbers it: an int, or `[B]` int64 for a batch.

        obs: one observation `[*obs_shape]` as the network sees it (an Atari game's four
          newest frames, preprocessed), or a batch `[B, *obs_shape]`.
        action_mask: `[A]` or `[B, A]` bool, True where allowed; None allows all.
        Of equal values the first is taken. Raises ValueError for an observation of another
        shape or kind.
        """
        values = self.q_values(obs)
        if action_mask is not None:
            values = np.where(np.asarray(action_mask, bool), values, -np.inf)
        actions = values.argmax(axis=-1) + self.action_start
        return int(actions) if values.ndim == 1 else actions

    def q_values(self, obs: Any) -> np.ndarray:
        """Action values, `[A]` of one observation or `[B, A]` of a batch."""
        array = self._stored(obs)
        is_single = array.ndim == len(self.observation.obs_shape)
        batch = torch.from_numpy(array[None] if is_single else array)
        with torch.inference_mode():
            values = self.network(batch).numpy()
        return values[0] if is_single else values

    def _stored(self, obs: Any) -> np.ndarray:
        """The observation in its stored dtype, refused where it is not one."""
        spec, array = self.observation, np.asarray(obs)
        if array.shape not in (spec.obs_shape, array.shape[:1] + spec.obs_shape):
            raise ValueError(
                f"obs must be one observation {list(spec.obs_shape)} or a batch "
                f"[B, ...] of them, got {list(array.shape)}"
            )
        if not np.can_cast(array.dtype, spec.dtype, "same_kind"):
            raise ValueError(f"obs must be {spec.dtype} as the env gives it, got {array.dtype}")
        return np.array(array, dtype=spec.dtype, order="C")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Greedy episodes with a run's policy.

    checkpoint: its folder.  env_steps: after which it was saved.
    seed: of the first env.  epsilon: probability of a random action.
    returns, lengths: `[episodes]` raw returns and steps.
    num_cut: episodes that were cut at `eval.max_episode_steps`.
    videos: paths.  warnings: lines.
    """

    run_name: str
    env_id: str
    checkpoint: str
    env_steps: int
    episodes: int
    seed: int
    epsilon: float
    returns: np.ndarray
    lengths: np.ndarray
    num_cut: int
    videos: list[str]
    warnings: list[str]

    @property
    def mean(self) -> float:
        """Of the returns."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns."""
        return float(self.returns.std())

    def to_json(self) -> dict[str, Any]:
        """As plain values, of returns and lengths the figures alone."""
        fields: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "returns":
                kinds = ("mean", "std", "min", "max")
                fields |= {f"return_{kind}": getattr(value, kind)() for kind in kinds}
            elif name == "lengths":
                fields["length_mean"] = value.mean()
            else:
                fields[name] = value
        return plain(fields)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A run's policy and where it comes from."""

    folder: RunFolder
    config: Config
    path: Path
    policy: Policy
    origin: dict[str, Any]
    warnings: list[str]


def load_policy(
    run: str | Path,
    checkpoint: str | Path = "best",
    make_network: MakeNetwork | None = None,
    runs_dir: str | Path = "runs",
    observation_space: Any = None,
) -> Policy:
    """The policy of a run.

    run: its name or folder.
    checkpoint: "best" (the newest, where there is no best one), "newest", or a path.
    make_network: what the run was trained with, if anything.
    observation_space: for `make_network`; by default that of the run's `env.id`.
    Raises RunError where there is no such run or the network cannot be rebuilt, CheckpointError
    where there is no checkpoint, or a file is truncated or altered.
    """
    loaded = _load(run, checkpoint, runs_dir, make_network, None, observation_space)
    for line in loaded.warnings:
        warnings.warn(line, stacklevel=2)
    return loaded.policy


def evaluate(
    run: str | Path,
    make_env: MakeEnv | None = None,
    make_network: MakeNetwork | None = None,
    *,
    episodes: int = 100,
    checkpoint: str | Path = "best",
    seed: int = 0,
    epsilon: float | None = None,
    video: bool = False,
    runs_dir: str | Path = "runs",
) -> Evaluation:
    """Plays greedy episodes with a run's policy.

    run: its name or folder.  make_env, make_network: what it was trained with, if anything.
    checkpoint: as for `load_policy`.
    epsilon: probability of a random action; None: the run's `eval.epsilon`.
    video: whether one more episode is recorded, into the run's `videos/`.
    Raises as `load_policy` does, RunError where a function is missing, and EnvError.
    """
    folder = RunFolder.find(run, runs_dir)
    env_id = load_config(folder.config_path).env.id
    folder.require_make_env(env_id, make_env, "distdqn.evaluate")
    loaded = _load(run, checkpoint, runs_dir, make_network, make_env, None, call="distdqn.evaluate")
    q_values, max_steps = loaded.policy.q_values, loaded.config.eval.max_episode_steps
    epsilon = loaded.config.eval.epsilon if epsilon is None else epsilon
    steppers = functools.partial(make_stepper, loaded.config.env, make_env=make_env)
    with contextlib.closing(steppers(min(episodes, MAX_ENVS))) as stepper:
        result = play_episodes(stepper, q_values, episodes, seed, max_steps, epsilon=epsilon)
    videos = [_film(loaded, steppers, seed, epsilon)] if video else []
    return Evaluation(
        **loaded.origin,
        episodes=episodes,
        seed=seed,
        epsilon=epsilon,
        returns=result.returns,
        lengths=result.lengths,
        num_cut=result.num_cut,
        videos=videos,
        warnings=loaded.warnings,
    )


def _film(loaded: _Loaded, steppers: Callable[..., Any], seed: int, epsilon: float) -> str:
    """Records one more episode into the run's folder; gives the file."""
    path = loaded.folder.path / "videos" / f"evaluate_{loaded.path.name}_seed_{seed}.mp4"
    make = functools.partial(steppers, 1, render_mode="rgb_array")
    max_steps = loaded.config.eval.max_episode_steps
    record_video(make, loaded.policy.q_values, path, seed, max_steps, epsilon)
    return str(path)


def _load(
    run: str | Path,
    which: str | Path,
    runs_dir: str | Path,
    make_network: MakeNetwork | None,
    make_env: MakeEnv | None,
    observation_space: Any,
    call: str = "load_policy",
) -> _Loaded:
    """call: what takes `make_network`, for a message."""
    folder = RunFolder.find(run, runs_dir)
    config = load_config(folder.config_path)
    path, checkpoint, lines = find_checkpoint(folder.path, which)
    kind, saved = checkpoint.network, checkpoint.network["observation"]
    observation = ObservationSpec(**{**saved, "shape": tuple(saved["shape"])})
    if kind.get("custom") and make_network is None:
        raise RunError(
            f"run {folder.name!r} was trained with its own make_network: pass the same from "
            f"Python, {call}({folder.argument!r}, make_network=...)"
        )
    if observation_space is None and (make_network is not None or ":" in kind["torso"]):
        observation_space = _observation_space(config, observation, make_env)
    network = _build(kind, observation, make_network, observation_space)
    _fill(network, checkpoint, path)
    policy = Policy(network, observation, kind["num_actions"], kind["action_start"])
    origin = {
        "run_name": folder.name,
        "env_id": config.env.id,
        "checkpoint": str(path),
        "env_steps": checkpoint.env_steps,
    }
    return _Loaded(folder, config, path, policy, origin, lines)


def _build(
    kind: Mapping[str, Any],
    observation: ObservationSpec,
    make_network: MakeNetwork | None,
    observation_space: Any,
) -> torch.nn.Module:
    """The network with arbitrary parameters; the caller's random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        if make_network is not None:
            return make_network(observation_space, kind["num_actions"])
        hidden, dueling = tuple(kind["hidden"]), kind["dueling"]
        try:
            return make_own_network(
                observation, kind["num_actions"], kind["torso"], hidden, dueling, observation_space
            )
        except ConfigError as error:
            raise RunError(f"the network cannot be rebuilt: {error}") from error


def _fill(network: torch.nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in checkpoint.online.items()}
    try:
        parameters = FlatParameters(network)
        parameters.load(parameters.from_state_dict(tensors))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} does not fit the network: {error}") from error
    network.eval()


def _observation_space(
    config: Config, observation: ObservationSpec, make_env: MakeEnv | None
) -> Any:
    """The env's own space, when it is the one that the run saw."""
    if make_env is None and config.env.is_function:
        raise RunError(f"the run was made with the {config.env.id}: pass observation_space=")
    description = describe(config.env, make_env)
    if description.observation != observation:
        raise RunError(
            f"observations of {config.env.id} are {description.observation.obs_shape}, the run's "
            f"were {observation.obs_shape}: it was trained with its own make_env; pass "
            "observation_space="
        )
    return description.observation_space
