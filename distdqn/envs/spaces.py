"""Observation spaces: of what is stored and of what a torso sees; as plain values, for checkpoints.

    Box            {"kind": "Box", "shape": [4], "dtype": "float32", "low": [...], "high": [...]}
    Discrete       {"kind": "Discrete", "n": 16, "start": 0}
    MultiBinary    {"kind": "MultiBinary", "n": [2, 3]}
    MultiDiscrete  {"kind": "MultiDiscrete", "nvec": [...], "start": [...], "dtype": "int64"}
    Dict           {"kind": "Dict", "spaces": [["'key'", space], ...]} in order, keys as literals
    Tuple          {"kind": "Tuple", "spaces": [space, ...]}

A bound that is the same everywhere is written once. Infinities are texts: JSON has none.
"""

import ast
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from distdqn.types import ObservationSpec


def to_plain(space: spaces.Space[Any]) -> dict[str, Any]:
    """Of a space that `ObservationEncoder` supports."""
    if isinstance(space, spaces.Dict):
        parts = [[repr(key), to_plain(part)] for key, part in space.spaces.items()]
        return {"kind": "Dict", "spaces": parts}
    if isinstance(space, spaces.Tuple):
        return {"kind": "Tuple", "spaces": [to_plain(part) for part in space.spaces]}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    plain: dict[str, Any] = {"dtype": np.dtype(space.dtype).name}
    if isinstance(space, spaces.MultiDiscrete):
        nvec, start = space.nvec.tolist(), space.start.tolist()
        return plain | {"kind": "MultiDiscrete", "nvec": nvec, "start": start}
    assert isinstance(space, spaces.Box), space
    bounds = {name: _bound(getattr(space, name)) for name in ("low", "high")}
    return plain | {"kind": "Box", "shape": list(space.shape)} | bounds


def from_plain(plain: Mapping[str, Any]) -> spaces.Space[Any]:
    """The space of which `to_plain` gave these values."""
    kind = plain["kind"]
    if kind == "Dict":
        parts = [(ast.literal_eval(key), from_plain(part)) for key, part in plain["spaces"]]
        return spaces.Dict(OrderedDict(parts))
    if kind == "Tuple":
        return spaces.Tuple([from_plain(part) for part in plain["spaces"]])
    if kind == "MultiBinary":
        return spaces.MultiBinary(plain["n"])
    if kind == "Discrete":
        return spaces.Discrete(plain["n"], start=plain["start"])
    dtype: Any = np.dtype(plain["dtype"]).type
    if kind == "MultiDiscrete":
        nvec, start = (np.array(plain[name], dtype) for name in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, dtype=dtype, start=start)
    shape = tuple(plain["shape"])
    low, high = (np.broadcast_to(_array(plain[name], dtype), shape) for name in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype)


def space_of(observation: ObservationSpec) -> spaces.Space[Any]:
    """A space whose observations, stacked ones, are stored as `observation` says."""
    if observation.num_categories:
        return spaces.Discrete(observation.num_categories)
    dtype: Any = np.dtype(observation.dtype)
    limits = np.iinfo(dtype) if dtype.kind in "iu" else None
    low, high = (limits.min, limits.max) if limits else (-np.inf, np.inf)
    return spaces.Box(low, high, observation.obs_shape, dtype.type)


def seen_space(observation: ObservationSpec, space: spaces.Space[Any] | None) -> spaces.Box:
    """The space of what a torso is given: the env's own where that has its shape.

    Else, of `Dict` and the like of the flat vector, of an index of its one-hot vector.
    """
    shape = observation.obs_shape
    if observation.num_categories:
        shape = (*shape, observation.num_categories)
    shape = shape or (1,)
    if isinstance(space, spaces.Box) and space.shape == shape:
        return space
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _bound(bound: np.ndarray) -> Any:
    same = bound.size > 0 and (bound == bound.flat[0]).all()
    return _written((bound.flat[0] if same else bound).tolist())


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return [_written(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _array(value: Any, dtype: Any) -> np.ndarray:
    """Texts are numbers too; integers go no way through floats, which would round them."""
    return np.array(value, np.float64 if np.dtype(dtype).kind == "f" else None).astype(dtype)
