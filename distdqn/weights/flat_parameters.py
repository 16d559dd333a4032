"""A network's parameters as one flat vector.

One vector is what the optimizer moves, what travels to the workers, and what is
hashed. The gradient with respect to it is one `cat`, since the layers read views.

Symbols: `P` parameters in all.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import nn

Layout = tuple[tuple[str, tuple[int, ...]], ...]
_StateDict = Mapping[str, torch.Tensor]


class FlatParameters:
    """Maps between a module's parameters and a vector `[P]`, in the module's order.

    module: is kept, not copied; `apply` lends it other parameters for the length of
      one call, so that a module must not be used by two threads.
    names, shapes, sizes: of the parameters, in order; layout: names with shapes, plain
      values for those who do not load torch.
    size: P.  dtype: float32 or float64, the same for all.

    Buffers are constants that every process builds alike: no vector carries them.
    """

    def __init__(self, module: nn.Module) -> None:
        """Raises ValueError where one vector could not stand for the module: no parameters, one
        used under two names, one that is frozen, more than one dtype, or running statistics,
        which change without a gradient.
        """
        _refuse_running_statistics(module)
        named = list(module.named_parameters(remove_duplicate=False))
        _refuse_unflat(named)
        self.module = module
        self.layout: Layout = tuple((name, tuple(p.shape)) for name, p in named)
        self.names = tuple(name for name, _ in named)
        self.shapes = tuple(shape for _, shape in self.layout)
        self.sizes = [parameter.numel() for _, parameter in named]
        self.size = sum(self.sizes)
        self.dtype = named[0][1].dtype
        self._homes = [_home(module, name) for name in self.names]

    def flatten(self) -> torch.Tensor:
        """A copy of the module's own parameters, `[P]`."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self._own()])

    def views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The parameters as views of `flat [P]`, in order."""
        assert flat.shape == (self.size,), (flat.shape, self.size)
        pieces = flat.split_with_sizes(self.sizes)
        # A one-dimensional piece has its shape already; a view costs 2 microseconds.
        return [
            piece if len(shape) == 1 else piece.view(shape)
            for piece, shape in zip(pieces, self.shapes, strict=True)
        ]

    def apply(self, flat: torch.Tensor, obs: torch.Tensor) -> torch.Tensor:
        """The module's output with the parameters `flat [P]`; differentiable in them.

        What torch.func.functional_call does, without its checks, which cost half as
        much again as a forward pass of a small network.
        """
        own = self._own()
        try:
            for (home, key), view in zip(self._homes, self.views(flat), strict=True):
                home[key] = view
            return self.module(obs)
        finally:
            for (home, key), parameter in zip(self._homes, own, strict=True):
                home[key] = parameter

    def load(self, flat: torch.Tensor | np.ndarray) -> None:
        """Copies `flat [P]` (a read-only array too) into the module's own parameters."""
        vector = torch.from_numpy(np.array(flat)) if isinstance(flat, np.ndarray) else flat
        with torch.no_grad():
            for parameter, view in zip(self._own(), self.views(vector), strict=True):
                parameter.copy_(view)

    def from_state_dict(self, state_dict: _StateDict) -> torch.Tensor:
        """The vector `[P]` of a state dict of the same network; buffers may be left out.

        Raises ValueError where names or shapes differ, or a buffer has other values here.
        """
        if what := next(self._differences(state_dict, self.module.state_dict()), None):
            raise ValueError(f"weights of another network: {what}")
        pieces = [state_dict[name].detach().to(self.dtype).reshape(-1) for name in self.names]
        return torch.cat(pieces)

    def _differences(self, given: _StateDict, own: _StateDict) -> Iterator[str]:
        missing, extra = set(self.names) - given.keys(), given.keys() - own.keys()
        if missing or extra:
            yield f"missing {sorted(missing)}, extra {sorted(extra)}"
        for name, x in given.items():
            if x.shape != own[name].shape:
                yield f"{name} is {list(own[name].shape)} here, got {list(x.shape)}"
            elif name not in self.names and not torch.equal(x.to(own[name]), own[name]):
                yield f"buffer {name} has other values here"

    def _own(self) -> list[nn.Parameter]:
        return [home[key] for home, key in self._homes]


def _home(module: nn.Module, name: str) -> tuple[dict, str]:
    """The `_parameters` dictionary that holds a parameter, and its key there."""
    path, _, key = name.rpartition(".")
    return module.get_submodule(path)._parameters, key


def _refuse_unflat(named: list[tuple[str, nn.Parameter]]) -> None:
    if not named:
        raise ValueError("the network has no parameters: there is nothing to train")
    seen: dict[int, str] = {}
    for name, parameter in named:
        if (first := seen.setdefault(id(parameter), name)) != name:
            raise ValueError(
                f"parameter {name} is shared with {first}: a flat vector would hold it twice, "
                "and the copies would part"
            )
        if not parameter.requires_grad:
            raise ValueError(f"parameter {name} is frozen: make it a buffer, all are trained")
    dtypes = {str(parameter.dtype) for _, parameter in named}
    if dtypes not in ({"torch.float32"}, {"torch.float64"}):
        raise ValueError(f"parameters must be all float32 or all float64, got {sorted(dtypes)}")


def _refuse_running_statistics(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if getattr(layer, "running_mean", None) is not None:
            raise ValueError(
                f"{name or type(layer).__name__} keeps running statistics, which no vector "
                "of parameters carries to the workers; use LayerNorm"
            )
