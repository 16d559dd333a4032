"""Env steps per second of acting: envs alone, the network alone, both as an env worker does.

A worker steps its envs and chooses their actions in turn, on one core. Its limit is the
envs alone, as Gymnasium or ale-py give them; nearer to what it can reach is

    1 / (1 / rate of the envs alone + 1 / rate of the network alone)

All three are measured in turn in this process, and every share is of its own round.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Callable, Iterator

import numpy as np
from torch import nn

from distdqn.acting.acting_network import ActingNetwork
from distdqn.acting.rollout import Rollout, RolloutSettings
from distdqn.bench.measure import Rates, in_turn, peak_bytes, rate_case, reset_peak
from distdqn.bench.result import Case, Result, Setting, new_result
from distdqn.bench.synthetic import make_frames
from distdqn.config import EnvConfig
from distdqn.envs.make import BareEnv, make_stepper
from distdqn.envs.stepper import VectorStepper
from distdqn.errors import begun
from distdqn.machine.cpu_threads import cpu_threads
from distdqn.networks.q_network import make_network


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Which envs, and how many of them a worker steps together.

    env_ids: registered ids; the network is the one that suits the observations.
    envs: of a worker.
    n_step: steps of a transition.
    block_transitions: over all the worker's envs; blocks are made, and nobody takes them.
    repeats: repetitions of each measurement.
    seconds: of one repetition.
    """

    env_ids: tuple[str, ...] = ("CartPole-v1", "ALE/Breakout-v5")
    envs: tuple[int, ...] = (1, 8, 32)
    n_step: int = 1
    block_transitions: int = 512
    repeats: int = 5
    seconds: float = 0.4


QUICK = Options(envs=(8,), seconds=0.25)


def run(options: Options, say: Callable[[str], None]) -> Result:
    """Measures in this process on one core; games are left out where ale-py is missing.

    Raises EnvError for an env that cannot be made.
    """
    cases: list[Case] = []
    notes: list[str] = []
    for env_id in options.env_ids:
        settings = EnvConfig(env_id, reward_clip=1.0)
        if settings.is_atari and importlib.util.find_spec("ale_py") is None:
            notes.append(f"left out: {env_id}, ale-py is not installed")
            continue
        for num_envs in options.envs:
            say(f"{env_id}, {num_envs} envs")
            with cpu_threads(1):
                cases += _measure(settings, num_envs, options)
    return new_result("rollout", options, cases, notes)


def in_turn_rates(env: Rates, inference: Rates) -> Rates:
    """What envs and network reach one after the other, round by round."""
    pairs = zip(env.per_s, inference.per_s, strict=True)
    per_s = tuple(1 / (1 / steps + 1 / values) for steps, values in pairs)
    return Rates(per_s, env.cpu_s + inference.cpu_s)


def _measure(settings: EnvConfig, num_envs: int, options: Options) -> Iterator[Case]:
    reset_peak()
    stepper, bare = make_stepper(settings, num_envs), BareEnv(settings, num_envs)
    works = {
        "env": bare.step,
        "inference": _inference(stepper, num_envs),
        "rollout": _acting(stepper, num_envs, options),
    }
    try:
        with begun():
            rates = in_turn(works, options.seconds, options.repeats)
    finally:
        stepper.close()
        bare.close()
    where: dict[str, Setting] = {"env": settings.id, "envs": num_envs}
    unit, peak = "env steps/s", peak_bytes()
    for name in ("env", "inference"):
        yield rate_case(f"{name} alone", where, unit, rates[name])
    both, alone = rates["rollout"], in_turn_rates(rates["env"], rates["inference"])
    way = "env and inference alone, in turn"
    yield rate_case("rollout", where, unit, both, rates["env"], "env alone", peak_bytes=peak)
    yield rate_case("rollout, inference counted", where, unit, both, alone, way)


def _network(stepper: VectorStepper) -> nn.Module:
    return make_network(stepper.observation, stepper.num_actions, "auto")


def _inference(stepper: VectorStepper, num_envs: int) -> Callable[[], int]:
    """Action values of made-up observations that stay the same."""
    acting, spec = ActingNetwork(_network(stepper), num_envs, double=False), stepper.observation
    frames = make_frames(spec, num_envs * spec.stack, np.random.default_rng(0))
    obs = frames.reshape(num_envs, *spec.obs_shape)

    def act() -> int:
        acting.q_values(obs)
        return num_envs

    return act


def _acting(stepper: VectorStepper, num_envs: int, options: Options) -> Callable[[], int]:
    """Blocks of a rollout whose network is asked but not heeded: actions are random too."""
    block = max(options.block_transitions, num_envs)
    settings = RolloutSettings(options.n_step, 0.99, block, seed=1)
    rollout = Rollout(stepper, _network(stepper), settings, lambda _: np.ones(num_envs))

    def collect() -> int:
        before = rollout.stepped
        rollout.collect(2**62, math.inf)
        return rollout.stepped - before

    return collect
