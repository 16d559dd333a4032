"""What a run would start, and where, without starting it.

The same checks as at the start, as far as this machine can make them: of a cluster's nodes
nothing is known before it is joined.
"""

import math
import os

from distdqn.config import Config
from distdqn.errors import ResourceError
from distdqn.run.actors import asked_for, embedded_cpus, needed_cpus
from distdqn.run.factory import Factory


def plan(factory: Factory) -> dict[str, str]:
    """A line for each part, by its name.

    Raises ConfigError for a network that cannot be made, ResourceError for a GPU that is not here.
    """
    config, observation = factory.config, factory.observation
    is_here = config.mode == "lockstep" or _address(config) is None
    shape = "x".join(map(str, observation.shape)) or "single"
    parts = {
        "env": f"{config.env.id}: {shape} {observation.dtype} observations, "
        f"{factory.num_actions} actions",
        "network": _network(factory),
        "memory": factory.memory_budget().line(),
        "device": _device(config) if is_here else f"{config.learner.device}, of the learner's node",
        "Ray": _ray(config),
    }
    return parts if config.mode == "lockstep" else parts | _actors(config, is_here)


def _network(factory: Factory) -> str:
    network = factory.network()
    size = sum(parameter.numel() for parameter in network.parameters())
    torso = "make_network()" if factory.make_network else f"torso {factory.config.network.torso}"
    return f"{torso}, {size:,} parameters"


def _device(config: Config) -> str:
    """Where the learner computes, if on this machine."""
    import torch

    from distdqn.learning.staging import choose_device

    learner, present = config.learner, torch.cuda.device_count()
    if learner.num_gpus > present:
        raise ResourceError(
            f"learner.num_gpus is {learner.num_gpus:g} and PyTorch sees {present} GPUs here; "
            "lower --learner.num-gpus, or check nvidia-smi, the driver and CUDA_VISIBLE_DEVICES"
        )
    return choose_device(learner.device).type


def _address(config: Config) -> str | None:
    return config.address or os.environ.get("RAY_ADDRESS") or None


def _ray(config: Config) -> str:
    if config.mode == "lockstep":
        return "none; mode lockstep is one process"
    needs = f"{needed_cpus(config):g} CPUs and {config.learner.num_gpus:g} GPUs"
    if address := _address(config):
        source = "" if config.address else " (RAY_ADDRESS)"
        return f"the cluster at {address}{source}, which must have {needs} free"
    gpus = math.ceil(config.learner.num_gpus)
    return f"embedded on this machine, with {embedded_cpus(config)} CPUs and {gpus} GPUs declared"


def _actors(config: Config, is_here: bool) -> dict[str, str]:
    workers, asked = config.workers, asked_for(config)
    is_free = config.learner.num_gpus or config.learner.resources
    of_learner = ", on any node" if is_free else ", on the driver's node"
    spread, in_turn, others = (
        ("", "", "")
        if is_here
        else (", spread over the nodes", ", on the nodes in turn", ", on the driver's node")
    )
    return {
        "env workers": f"{workers.count} of {workers.envs_per_worker} envs, "
        f"{_amounts(asked['worker'])} each{spread}",
        "replay shards": f"{config.replay.shards}{in_turn}",
        "learner": f"1, {_amounts(asked['learner'])}{'' if is_here else of_learner}",
        "others": f"control, weight server, evaluator{others}",
    }


def _amounts(asked: dict) -> str:
    named = {"CPU": asked["num_cpus"], "GPU": asked.get("num_gpus", 0), **asked["resources"]}
    return ", ".join(f"{amount:g} {name}" for name, amount in named.items() if amount) or "0 CPU"
