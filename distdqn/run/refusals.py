"""What can be refused before anything starts.

Each costs no more than it must: torch is loaded only where a GPU is asked for, or a network is to
be made anyway.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.config import Config
from distdqn.config.files import preset_names
from distdqn.config.sections import function_name
from distdqn.errors import ConfigError, ResourceError, one_line, shorten
from distdqn.machine.joined import which_ray

if TYPE_CHECKING:
    import torch


def check_initial(
    init_from: str | None, network: torch.nn.Module, initial: Mapping[str, np.ndarray]
) -> None:
    """Raises ConfigError where `initial`, parameters by name, are another network's.

    init_from: the run that they come from.
    """
    here = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    there = {name: array.shape for name, array in initial.items()}
    for name in here | there:
        if here.get(name) != there.get(name):
            theirs, ours = (
                f"is {list(shapes[name])}" if name in shapes else "does not exist"
                for shapes in (there, here)
            )
            raise ConfigError(
                f"init_from {init_from!r} has another network: its {name} {theirs}, here it "
                f"{ours}; set network.* as in that run, and take an environment with its "
                "observations and actions"
            )


def check_gpus(config: Config) -> None:
    """Raises ResourceError where the learner, which will be here, asks for GPUs that are not."""
    learner = config.learner
    reserved = 0 if config.mode == "lockstep" else math.ceil(learner.num_gpus)
    wanted = max(reserved, int(learner.device == "cuda"))
    if not wanted:
        return
    import torch

    if (present := torch.cuda.device_count()) < wanted:
        asked = f"num_gpus is {learner.num_gpus:g}" if reserved else "device is cuda"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = "" if visible is None else f" with CUDA_VISIBLE_DEVICES={visible!r}"
        raise ResourceError(
            f"learner.{asked} but PyTorch sees {present} GPUs here{hidden}; use "
            "--learner.device cpu --learner.num-gpus 0, or check nvidia-smi and the driver"
        )


def check_travels(name: str, function: Callable[..., Any]) -> None:
    """Raises ConfigError where Ray cannot send a function to other processes.

    name: of the argument.
    """
    import ray

    try:
        ray.cloudpickle.dumps(function)
    except Exception as error:  # what `__reduce__` of anything raises
        raise ConfigError(
            f"{name}, {function_name(function)}, cannot be sent to other processes "
            f"({one_line(error)}): have it make what it needs when it is called"
        ) from error


def check_arguments(config: object, make_env: object, make_network: object) -> None:
    """Raises ConfigError where what was passed is of another kind."""
    if not isinstance(config, Config):
        is_preset = isinstance(config, str) and config in preset_names()
        example = f"preset={config!r}" if is_preset else "'FILE.yaml'"
        example = f"values={config!r}" if isinstance(config, dict) else example
        raise ConfigError(
            f"the configuration is {shorten(repr(config))}, must be a distdqn.Config: "
            f"pass distdqn.load_config({shorten(example)})"
        )
    if make_env is not None and not callable(make_env):
        way_out = "a function that makes one environment"
        if isinstance(make_env, str):
            way_out += f", or leave it out and set env.id to {make_env!r}"
        raise ConfigError(f"make_env is {shorten(repr(make_env))}, must be {way_out}")
    if make_network is not None and not callable(make_network):
        raise ConfigError(
            f"make_network is {shorten(repr(make_network))}, must be a function "
            "(observation space, number of actions) -> module giving [B, A]"
        )


def check_address(config: Config) -> None:
    """Raises RunError where a cluster is named that cannot be joined."""
    if config.mode != "lockstep" and (choice := which_ray(config.address)).kind == "cluster":
        from distdqn.run.joining import check_cluster

        check_cluster(choice)
