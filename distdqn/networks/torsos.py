"""Convolutional torsos for pictures: `nature` and `minatar`.

They take pictures as they are stored, bytes included, and read them once: cast and put
channels last in one pass, with the scale folded into the first layer's weights. Bytes up
to 255 are exact in bfloat16, which pictures scaled to [0, 1] are not.

    obs [B, *obs_shape] --picture--> [B, C, H, W], channels last in memory --> [B, H]
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from distdqn.networks.pictures import channels_last, picture_of
from distdqn.types import ObservationSpec


class PictureTorso(nn.Module):
    """Convolutions and one dense layer, ReLU after each; from stored pictures to `[B, H]`.

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
