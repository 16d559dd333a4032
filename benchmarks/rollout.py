"""How near acting comes to its limit: emulator and network alone, one after the other.

An env worker steps its envs and chooses their actions in turn, so with both measured by
themselves it can at most reach

    limit = N / (time per vector step + time per inference)        env steps per second

Three things run alternately in this process: ale-py's vector env with random actions, the
acting network on observations that do not change, and `Rollout.collect`.

    python benchmarks/rollout.py --json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from distdqn.acting_network import ActingNetwork
from distdqn.envs import AtariSettings, EnvSettings, make_stepper
from distdqn.networks import make_network
from distdqn.rollout import Rollout

PER_ENV = 64  # transitions of an env in a block, as in the Atari presets
ROUNDS = 10
REACH = 0.85


def bare_env(game: str, num_envs: int, atari: AtariSettings) -> Callable[[], None]:
    """One vector step with random actions; ale-py resets the games by itself."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(
        game,
        num_envs,
        num_threads=1,
        stack_num=1,
        frameskip=atari.frame_skip,
        repeat_action_probability=atari.sticky_actions,
        noop_max=0,
        reward_clipping=False,
        use_fire_reset=False,
    )
    env.reset(seed=0)
    rng, num_actions = np.random.default_rng(0), len(env.ale.get_action_set())

    def step() -> None:
        env.step(rng.integers(num_actions, size=num_envs))

    return step


def inference(network: torch.nn.Module, spec: Any, num_envs: int) -> Callable[[], None]:
    acting = ActingNetwork(network, num_envs, double=False)
    rng = np.random.default_rng(0)
    obs = rng.integers(0, 256, (num_envs, *spec.obs_shape)).astype(spec.dtype)

    def act() -> None:
        acting.q_values(obs)

    return act


def acting(settings: EnvSettings, num_envs: int, n_step: int) -> tuple[Rollout, Any, Any]:
    """A rollout whose blocks nobody takes, its stepper, and a network like its own."""
    stepper = make_stepper(settings, num_envs)
    networks = [make_network(stepper.observation, stepper.num_actions, "nature") for _ in "ab"]
    rollout = Rollout(
        stepper=stepper,
        network=networks[0],
        n_step=n_step,
        discount=0.99,
        block_transitions=PER_ENV * num_envs,
        max_block_age_s=math.inf,
        seed=1,
        worker=0,
        incarnation=1,
        with_priorities=False,
        double=False,
        epsilons=lambda env_steps: np.full(num_envs, 0.1),
    )
    return rollout, stepper, networks[1]


def seconds_per(work: Callable[[], None], seconds: float) -> float:
    """Mean time of a call, over about so many seconds."""
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        calls += 1
    return (time.perf_counter() - started) / calls


def collecting(rollout: Rollout, num_envs: int) -> Callable[[], None]:
    """As many vector steps as a block takes; what is left out is amortised in no other way."""

    def collect() -> None:
        rollout.collect(PER_ENV * num_envs, math.inf)

    return collect


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    settings = EnvSettings(arguments.env_id, reward_clip=1.0)
    num_envs, slot = arguments.envs, arguments.seconds / ROUNDS / 3
    rollout, stepper, network = acting(settings, num_envs, arguments.n_step)
    game = _game(arguments.env_id)
    works = {
        "env": bare_env(game, num_envs, settings.atari),
        "inference": inference(network, stepper.observation, num_envs),
    }
    collect = collecting(rollout, num_envs)
    times: dict[str, list[float]] = {name: [] for name in (*works, "rollout")}
    for work in (*works.values(), collect):
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds_per(work, slot))
        before, started = rollout.stepped, time.perf_counter()
        seconds_per(collect, slot)
        vector_steps = (rollout.stepped - before) / num_envs
        times["rollout"].append((time.perf_counter() - started) / vector_steps)
    return summary(times, arguments)


def summary(times: dict[str, list[float]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per vector step, rates, and the share of each round's own limit."""
    rounds = list(zip(times["env"], times["inference"], times["rollout"], strict=True))
    shares = [(env + act) / whole for env, act, whole in rounds]
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "env_id": arguments.env_id,
        "envs": arguments.envs,
        "n_step": arguments.n_step,
        "rounds": ROUNDS,
        **{f"{name}_ms": 1e3 * seconds for name, seconds in median.items()},
        "limit_env_steps_per_s": arguments.envs / (median["env"] + median["inference"]),
        "env_steps_per_s": arguments.envs / median["rollout"],
        "share": statistics.median(shares),
        "share_min": min(shares),
        "share_max": max(shares),
        "reach": REACH,
    }


def lines(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['env_id']}, {result['envs']} envs, medians of {result['rounds']} rounds"
    for name, text in (
        ("env", "vector step of ale-py alone"),
        ("inference", "inference alone"),
        ("rollout", "vector step of Rollout.collect"),
    ):
        yield f"  {text:32} {result[f'{name}_ms']:8.3f} ms"
    yield f"  {'limit':32} {result['limit_env_steps_per_s']:8,.0f} env steps per second"
    yield f"  {'reached':32} {result['env_steps_per_s']:8,.0f} env steps per second"
    yield (
        f"  share {result['share']:.3f} ({result['share_min']:.3f} to {result['share_max']:.3f} "
        f"over the rounds), to reach: {result['reach']}"
    )


def _game(env_id: str) -> str:
    """Name of the game's ROM, as ale-py registers it."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    return gymnasium.spec(env_id).kwargs["game"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--env-id", default="ALE/Breakout-v5", help="an Atari game")
    parser.add_argument("--envs", type=int, default=8)
    parser.add_argument("--n-step", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="in all")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments)
    print(json.dumps(result) if arguments.json else "\n".join(lines(result)))
    sys.exit(result["share"] < REACH)


if __name__ == "__main__":
    main()
