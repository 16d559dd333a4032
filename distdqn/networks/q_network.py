"""Q-networks: preprocessing, torso, head, as one module.

A network takes observations as they are stored (uint8 images, indices) and casts,
scales and one-hot encodes them itself, so nothing outside knows how it sees them.

    obs [B, *obs_shape] --preprocess--> float [B, ...] --torso--> [B, H] --head--> q [B, A]

A `PictureTorso` takes them as they are stored. Under `torch.autocast` the torso computes in
autocast's dtype, the head in that of its parameters: eight bits would not tell neighbouring
Q-values apart. Layers keep PyTorch's default initialisation; seed it with `torch.manual_seed`.
"""

import contextlib
import importlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from distdqn.errors import ConfigError, DistDQNError, one_line, own_frame, shorten, traceback_of
from distdqn.networks.pictures import (
    KNOWN_TORSOS,
    SMALLEST,
    channels_last,
    check_torso,
    picture_of,
    suited_torso,
)
from distdqn.types import ObservationSpec


class PictureTorso(nn.Module):
    """Convolutions and one dense layer, ReLU after each; from stored pictures to `[B, H]`.

        obs [B, *obs_shape] --picture--> [B, C, H, W], channels last in memory --> [B, H]

    It takes pictures as they are stored, bytes included, and reads them once: cast and put
    channels last in one pass, with the scale folded into the first layer's weights. Bytes up
    to 255 are exact in bfloat16, which pictures scaled to [0, 1] are not.

    convs: each its number of filters, of `size` x `size` pixels every `stride`; no padding.
    Layers keep PyTorch's shapes and order, so the parameters are those of a plain
    `nn.Sequential` of Conv2d, Flatten and Linear on `[B, C, H, W]`.
    """

    def __init__(
        self, observation: ObservationSpec, convs: Sequence[tuple[int, int, int]], width: int
    ) -> None:
        super().__init__()
        channels, *pixels = picture_of(observation)
        self.observation = observation
        layers = []
        for filters, size, stride in convs:
            layers.append(nn.Conv2d(channels, filters, size, stride))
            channels, pixels = filters, [(n - size) // stride + 1 for n in pixels]
        self.convs = nn.ModuleList(layers)
        self.dense = nn.Linear(channels * pixels[0] * pixels[1], width)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        weight = self.dense.weight
        x = as_picture(obs, self.observation)
        x = x.to(arithmetic_dtype(weight), memory_format=torch.channels_last)
        scale = self.observation.scale
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            # Some thousand numbers, in place of the same in a million of the input.
            filters = conv.weight if scale == 1.0 else conv.weight * scale
            scale = 1.0
            filters = filters.contiguous(memory_format=torch.channels_last)
            x = F.relu(F.conv2d(x, filters, conv.bias, conv.stride))
        return F.relu(self.dense(x.flatten(1)))


_LAYERS = {
    # Mnih et al. 2015 (doi:10.1038/nature14236), Methods, "Model architecture".
    "nature": (((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512),
    # Young and Tian 2019 (arXiv:1903.03176), section 4.
    "minatar": (((16, 3, 1),), 128),
}


def picture_torso(name: str, observation: ObservationSpec) -> tuple[PictureTorso, int]:
    """The torso `nature` or `minatar`, and its width; `check_torso` says what it cannot see."""
    convs, width = _LAYERS[name]
    return PictureTorso(observation, convs, width), width


def as_picture(obs: torch.Tensor, observation: ObservationSpec) -> torch.Tensor:
    """`[B, *obs_shape]` as `[B, C, H, W]`, a view but for stacks of coloured frames.

    Channels of a stack are frame by frame, the oldest first.
    """
    shape = observation.shape
    if len(shape) == 3 and channels_last(shape):
        obs = obs.movedim(-1, -3)
    return obs.reshape(len(obs), *picture_of(observation))


def arithmetic_dtype(parameter: torch.Tensor) -> torch.dtype:
    """In which a layer computes: under autocast its dtype, else that of the parameter."""
    device = parameter.device.type
    enabled = torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if enabled else parameter.dtype


class DuelingHead(nn.Module):
    """Value plus advantages less their mean, Wang et al. 2016 (arXiv:1511.06581) eq. 9.

    Both streams are one linear layer on the torso's features `[B, H]`. Without the
    mean a constant could move between the streams and neither would be identified.
    """

    def __init__(self, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.value = nn.Linear(num_features, 1)
        self.advantage = nn.Linear(num_features, num_actions)

    @property
    def weight(self) -> torch.Tensor:
        """The value stream's; tells the dtype, as a linear head's does."""
        return self.value.weight

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        advantage = self.advantage(features)  # [B, A]
        return self.value(features) + (advantage - advantage.mean(dim=1, keepdim=True))


class QNetwork(nn.Module):
    """Q-values `[B, A]` of stored observations `[B, *obs_shape]`.

    observation: how they are stored.
    torso: module from the preprocessed observations (a `PictureTorso`: from the stored
      ones) to features `[B, H]`.
    head: module from features to `[B, A]`, a `nn.Linear` or a `DuelingHead`.
    """

    def __init__(
        self, observation: ObservationSpec, torso: nn.Module, head: nn.Linear | DuelingHead
    ) -> None:
        super().__init__()
        self.observation, self.torso, self.head = observation, torso, head

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        # Not next(self.parameters()), a walk that takes as long as a small layer.
        weight = self.head.weight
        dtype = arithmetic_dtype(weight)
        if not isinstance(self.torso, PictureTorso):
            obs = preprocess(obs, self.observation, dtype)
        features = self.torso(obs)
        if dtype == weight.dtype:
            return self.head(features)
        with torch.autocast(weight.device.type, enabled=False):
            return self.head(features.to(weight.dtype))


def preprocess(obs: torch.Tensor, observation: ObservationSpec, dtype: torch.dtype) -> torch.Tensor:
    """Stored observations `[B, *obs_shape]` as floats: cast and scaled, or one-hot.

    An index becomes `[B, num_categories]`, a scalar `[B, 1]`; all else keeps its shape.
    An index out of range becomes zeros.
    """
    if observation.num_categories:
        categories = torch.arange(observation.num_categories, device=obs.device)
        # F.one_hot would read the indices on the host to check them.
        return (obs.unsqueeze(-1) == categories).to(dtype)
    x = obs.to(dtype)
    if observation.scale != 1.0:
        x = x * observation.scale
    return x.unsqueeze(1) if x.ndim == 1 else x


def mlp(observation: ObservationSpec, hidden: Sequence[int]) -> tuple[nn.Module, int]:
    """Linear layers with ReLU on the flattened observation; returns it and its width.

    No hidden layer leaves the observation itself: with one-hot indices the network is then a table.
    """
    shape = observation.obs_shape or (1,)
    if observation.num_categories:
        shape = (*observation.obs_shape, observation.num_categories)
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    for size, next_size in itertools.pairwise(widths):
        layers += [nn.Linear(size, next_size), nn.ReLU()]
    return nn.Sequential(*layers), widths[-1]


def make_network(
    observation: ObservationSpec,
    num_actions: int,
    torso: str = "mlp",
    hidden: Sequence[int] = (120, 84),
    dueling: bool = False,
    observation_space: Any = None,
) -> nn.Module:
    """Builds a Q-network that gives `[B, A]`.

    observation: how observations are stored.
    torso: "mlp", "nature", "minatar", "auto" for the one that suits the observations
      (`suited_torso`), or "module:function". The function gets `observation_space` (see
      `envs.spaces.seen_space`) where one is given and else `observation`, and returns a module
      and its output size H; the module maps preprocessed observations to `[B, H]`.
    hidden: widths of the mlp's layers.  dueling: a dueling head in place of a linear one.
    Raises ConfigError for an unknown torso, pictures that are none or too small for it, or a
    torso that cannot be imported, raises, or whose output is not `[B, H]`.
    """
    check_torso(torso, observation)
    torso = suited_torso(observation) if torso == "auto" else torso
    if torso == "mlp":
        body, width = mlp(observation, hidden)
    elif torso in SMALLEST:
        body, width = picture_torso(torso, observation)
    else:
        argument = observation if observation_space is None else observation_space
        body, width = _custom_torso(torso, argument, observation)
    head = DuelingHead if dueling else nn.Linear
    return QNetwork(observation, body, head(width, num_actions))


def check_network(module: nn.Module, observation: ObservationSpec, num_actions: int) -> None:
    """Runs a network on two observations of zeros; raises ConfigError where it cannot be trained.

    That is: it is no module, it raises, its output is not `[B, A]` floats (both shapes are
    named), or a forward pass changes its buffers, as batch normalisation does.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"the network must be a torch.nn.Module, is {shorten(repr(module))}")
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    q = _forward(module, _zeros(module, observation), "the network")
    required = (2, num_actions)
    if tuple(q.shape) != required or not q.is_floating_point():
        raise ConfigError(
            f"the network must give [B, A] = {list(required)} floats, "
            f"got {list(q.shape)} of {q.dtype}"
        )
    for name, buffer in module.named_buffers():
        if not torch.equal(buffer, before[name]):
            raise ConfigError(
                f"buffer {name} of the network changes in a forward pass: only parameters "
                "are trained and published; use LayerNorm in place of batch normalisation"
            )


def _custom_torso(torso: str, argument: Any, observation: ObservationSpec) -> tuple[nn.Module, int]:
    make, what = _import_function(torso), f"torso {torso!r}"
    with users_code(what):
        made = make(argument)
    if not _is_pair(made):
        raise ConfigError(
            f"{what} must return a module and its output size, (module, width), "
            f"returned {shorten(repr(made))}"
        )
    body, width = made
    zeros = preprocess(_zeros(body, observation), observation, torch.get_default_dtype())
    features = _forward(body, zeros, what)
    if tuple(features.shape) != (2, width):
        raise ConfigError(
            f"{what} must give [B, H] = {[2, width]} by its own output size, "
            f"got {list(features.shape)}"
        )
    return body, width


def _import_function(torso: str) -> Callable[[Any], Any]:
    """The function `module:function`; ConfigError where it cannot be had."""
    module_name, _, function_name = torso.partition(":")
    wrong = f"torso {torso!r} cannot be imported"
    try:
        with users_code(f"{wrong}: importing {module_name!r}"):
            module = importlib.import_module(module_name)
    except ConfigError as error:
        missing = getattr(error.__cause__, "name", None)  # of a module, where that is the cause
        if not missing or not (module_name + ".").startswith(f"{missing}."):
            raise
        raise ConfigError(
            f"{wrong}: there is no module {module_name!r} here; known are {KNOWN_TORSOS}"
        ) from error
    make = getattr(module, function_name, None)
    if not callable(make):
        raise ConfigError(
            f"{wrong}: {module_name} has no function {function_name!r}; known are {KNOWN_TORSOS}"
        )
    return make


def _is_pair(made: Any) -> bool:
    is_pair = isinstance(made, tuple | list) and len(made) == 2
    return is_pair and isinstance(made[0], nn.Module) and isinstance(made[1], int)


@contextlib.contextmanager
def users_code(what: str) -> Iterator[None]:
    """What a function of the user's raises within becomes a ConfigError with its own line.

    what: names the function.
    """
    try:
        yield
    except DistDQNError:
        raise
    except Exception as error:
        details = traceback_of(error)
        refusal = ConfigError(f"{what} raised {one_line(error)}{own_frame(details)}")
        refusal.details = details
        raise refusal from error


def _zeros(module: nn.Module, observation: ObservationSpec) -> torch.Tensor:
    """Two observations of zeros `[2, *obs_shape]` where the module's parameters are."""
    zeros = np.zeros((2, *observation.obs_shape), observation.dtype)
    return torch.from_numpy(zeros).to(next(module.parameters(), torch.empty(0)).device)


def _forward(module: nn.Module, inputs: torch.Tensor, what: str) -> torch.Tensor:
    given = f"input {list(inputs.shape)} of {inputs.dtype}"
    with users_code(f"{what} fails on {given}: it"), torch.no_grad():
        output = module(inputs)
    if not isinstance(output, torch.Tensor):
        raise ConfigError(f"{what} must give a tensor, got {shorten(repr(output))}")
    return output
