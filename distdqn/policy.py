"""A trained policy from a run's files.

Needs the run's folder alone: no Ray, and no environment but for checkpoints of earlier
versions, which do not say what a network of the user's own must be told of its observations.
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

from distdqn.config import Config, EnvConfig, load_config
from distdqn.envs.make import describe, make_playing_env, make_stepper
from distdqn.envs.observations import ObservationEncoder
from distdqn.envs.spaces import from_plain, seen_space, space_of
from distdqn.errors import CheckpointError, ConfigError, RunError, begun, shorten
from distdqn.evaluation.play import MAX_ENVS, EvaluationResult, play_episodes
from distdqn.evaluation.video import record_video, require_pictures
from distdqn.files.checkpoint import Checkpoint, find_checkpoint
from distdqn.files.run_folder import RunFolder, require_function
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
    observation: how one is stored.
    num_actions: A.  action_start: the env's own number for its first action.
    observation_space: of one observation; None: an array as `observation` stores it.
    env: settings of the run's environment, None without a run.
    """

    network: torch.nn.Module = dataclasses.field(repr=False)
    observation: ObservationSpec
    num_actions: int
    action_start: int = 0
    observation_space: Any = None
    env: EnvConfig | None = dataclasses.field(default=None, repr=False)

    def __call__(self, obs: Any, action_mask: Any = None) -> int | np.ndarray:
        """The best action, as the env numbers it: an int, or `[B]` int64 for a batch.

        obs: one observation as the env of `make_env` gives it (of a Dict space a dict; an Atari
          game's four newest frames), or a batch as Gymnasium's vector envs give it (of a Dict
          space a dict of arrays with B as their leading axis).
        action_mask: `[A]` or `[B, A]`, true where allowed, as in `info["action_mask"]`; None
          allows all.
        Of equal values the first is taken. Raises ValueError for an observation or a mask of
        another shape or kind, or a mask that allows nothing.
        """
        values = self.q_values(obs)
        if action_mask is not None:
            values = np.where(self._mask(action_mask, values.shape), values, -np.inf)
        actions = values.argmax(axis=-1) + self.action_start
        return int(actions) if values.ndim == 1 else actions

    def q_values(self, obs: Any) -> np.ndarray:
        """Action values, `[A]` of one observation or `[B, A]` of a batch."""
        batch, is_single = self._encoder.encode_given(obs)
        values = self.q_values_of_stored(batch)
        return values[0] if is_single else values

    def q_values_of_stored(self, batch: np.ndarray) -> np.ndarray:
        """`[B, A]` of observations `[B, *obs_shape]` as they are stored, and steppers give them."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(batch)).numpy()

    def make_env(self, make_env: MakeEnv | None = None, render_mode: str | None = None) -> Any:
        """A new environment of the run's, a `gymnasium.Env` whose observations this takes.

        It is wrapped, preprocessed and stacked as in the run, and counts rewards raw.

        make_env: the function that the run was made with, if one was.
        render_mode: as for `gymnasium.make`.
        Raises EnvError where it cannot be made, RunError where it is not the env of the run.
        """
        if self.env is None:
            raise RunError("the policy is of no run: make_env needs one from load_policy")
        require_function(self.env.id, make_env, "policy.make_env(make_env=...)")
        env = make_playing_env(self.env, make_env, render_mode)
        found = ObservationEncoder(env.observation_space, self.env.id).spec
        if not _is_stored(found, self.observation):
            env.close()
            raise _other_env(self.env.id, found.shape, self.observation, "make_env=")
        return env

    @functools.cached_property
    def _encoder(self) -> ObservationEncoder:
        space = self.observation_space
        space = space_of(self.observation) if space is None else space
        encoder = ObservationEncoder(space, "policy")
        if not _is_stored(encoder.spec, self.observation):
            raise RunError(
                f"observation_space is {shorten(space)}, observations of the run were "
                f"{self.observation.dtype}{list(self.observation.obs_shape)}: pass the run's"
            )
        return encoder

    def _mask(self, action_mask: Any, shape: tuple[int, ...]) -> np.ndarray:
        try:
            mask = np.asarray(action_mask).astype(bool)
        except (TypeError, ValueError):
            mask = np.zeros(())
        if mask.shape not in (shape, shape[-1:]):
            raise ValueError(f"action_mask must be {list(shape)}, got {list(mask.shape)}")
        if not mask.any(axis=-1).all():
            raise ValueError("action_mask allows no action: one of its rows is all false")
        return mask


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
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
    def return_mean(self) -> float:
        return float(self.returns.mean())

    @property
    def return_std(self) -> float:
        return float(self.returns.std())

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.to_json().items())
        return f"Evaluation({told})"

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
    observation_space: of its env; by default what the checkpoint says.
    Raises RunError where there is no such run or the network cannot be rebuilt, CheckpointError
    where there is no checkpoint, or a file is truncated or altered.
    """
    folder = RunFolder.find(run, runs_dir)
    config, call = load_config(folder.config_path), "distdqn.load_policy"
    loaded = _load(folder, config, checkpoint, call, make_network, None, observation_space)
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
    if episodes < 1:
        raise ConfigError(f"episodes is {episodes}, must be at least 1: a mean needs an episode")
    folder, call = RunFolder.find(run, runs_dir), "distdqn.evaluate"
    config = load_config(folder.config_path)
    folder.require_make_env(config.env.id, make_env, call)
    loaded = _load(folder, config, checkpoint, call, make_network, make_env)
    epsilon = config.eval.epsilon if epsilon is None else epsilon
    played, videos = _play(loaded, make_env, episodes, seed, epsilon, video)
    return Evaluation(
        **loaded.origin,
        episodes=episodes,
        seed=seed,
        epsilon=epsilon,
        returns=played.returns,
        lengths=played.lengths,
        num_cut=played.num_cut,
        videos=videos,
        warnings=loaded.warnings,
    )


def _play(
    loaded: _Loaded, make_env: MakeEnv | None, episodes: int, seed: int, epsilon: float, video: bool
) -> tuple[EvaluationResult, list[str]]:
    """The episodes, and the files of what was recorded beside them."""
    q_values, max_steps = loaded.policy.q_values_of_stored, loaded.config.eval.max_episode_steps
    steppers = functools.partial(make_stepper, loaded.config.env, make_env=make_env)
    filmed = functools.partial(steppers, 1, render_mode="rgb_array")
    if video:
        require_pictures(filmed)
    with contextlib.closing(steppers(min(episodes, MAX_ENVS))) as stepper, begun():
        played = play_episodes(stepper, q_values, episodes, seed, max_steps, epsilon=epsilon)
        return played, [_film(loaded, filmed, seed, epsilon)] if video else []


def _film(loaded: _Loaded, make: Callable[[], Any], seed: int, epsilon: float) -> str:
    """Records one more episode into the run's folder; gives the file."""
    path = loaded.folder.path / "videos" / f"evaluate_{loaded.path.name}_seed_{seed}.mp4"
    max_steps = loaded.config.eval.max_episode_steps
    record_video(make, loaded.policy.q_values_of_stored, path, seed, max_steps, epsilon)
    return str(path)


def _load(
    folder: RunFolder,
    config: Config,
    which: str | Path,
    call: str,
    make_network: MakeNetwork | None,
    make_env: MakeEnv | None,
    observation_space: Any = None,
) -> _Loaded:
    """which: of the checkpoints.  call: what takes the functions, for a message."""
    path, checkpoint, lines = find_checkpoint(folder.path, which)
    kind, saved = checkpoint.network, checkpoint.network["observation"]
    observation = ObservationSpec(**{**saved, "shape": tuple(saved["shape"])})
    if kind.get("custom") and make_network is None:
        raise RunError(
            f"run {folder.name!r} was trained with its own make_network: pass the same from "
            f"Python, {call}({folder.argument!r}, make_network=...)"
        )
    if observation_space is None and "observation_space" in kind:
        observation_space = from_plain(kind["observation_space"])
    elif observation_space is None and (make_network is not None or ":" in kind["torso"]):
        instead = f"{call}({folder.argument!r}, observation_space=...)"
        require_function(config.env.id, make_env, instead)
        observation_space = _observation_space(config, observation, make_env)
    network = _build(kind, observation, make_network, observation_space)
    _fill(network, checkpoint, path)
    actions = kind["num_actions"], kind["action_start"]
    policy = Policy(network, observation, *actions, observation_space, config.env)
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
        seen = seen_space(observation, observation_space)
        try:
            return make_own_network(
                observation, kind["num_actions"], kind["torso"], hidden, dueling, seen
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
    description = describe(config.env, make_env)
    if description.observation != observation:
        seen = description.observation.obs_shape
        raise _other_env(config.env.id, seen, observation, "observation_space=")
    return description.observation_space


def _is_stored(found: ObservationSpec, observation: ObservationSpec) -> bool:
    """Whether whole observations stored as `found` are those that a network takes."""
    return (found.shape, found.dtype) == (observation.obs_shape, observation.dtype)


def _other_env(
    env_id: str, seen: tuple[int, ...], observation: ObservationSpec, argument: str
) -> RunError:
    return RunError(
        f"observations of {env_id} are {seen}, the run's were {observation.obs_shape}: it was "
        f"trained with its own make_env; pass {argument}"
    )
