"""How observations of any supported space are stored.

An array stays the array it is; everything composite becomes one float32 vector, in
the order and with the one-hot vectors of `gymnasium.spaces.flatten`.

    Box                         its shape and dtype, but float64 as float32, bool as uint8;
                                the network scales uint8 pictures (grey or with channels)
                                of high 255 by 1/255
    Discrete                    int32 index from 0, one-hot in the network
    MultiBinary                 int8
    MultiDiscrete, Dict, Tuple  one float32 vector; an image inside is not scaled

float64 loses precision on purpose: networks compute in float32, and replay holds half the bytes.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from distdqn import errors
from distdqn.envs.failures import env_error
from distdqn.errors import shorten
from distdqn.types import ObservationSpec


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """One array within a nested observation, and its columns in the flat vector.

    path: keys and positions that lead to it; empty for the whole observation.
    start, stop: of its columns.
    one_hot: first column of each of its one-hot vectors; None for plain numbers.
    """

    path: tuple[Any, ...]
    space: Any
    start: int
    stop: int
    one_hot: np.ndarray | None

    def read(self, observation: Any, lead: tuple[int, ...] = ()) -> np.ndarray:
        """The leaf's `[*lead, ...]` array.  Raises _Misfit: it breaks the space.

        lead: shape before that of a single observation, `(N,)` for a batch.
        """
        array, space = self.find(observation), self.space
        required = space.shape or ()
        if array.shape != lead + required:
            got = array.shape[len(lead) :] if lead == array.shape[: len(lead)] else array.shape
            raise _Misfit("shape", self, required, got)
        if array.dtype != space.dtype and not np.can_cast(array.dtype, space.dtype, "same_kind"):
            raise _Misfit("dtype", self, space.dtype, array.dtype)
        return array

    def find(self, observation: Any) -> np.ndarray:
        """The leaf's array, as it is.  Raises _Misfit: it is not where it must be."""
        try:
            for key in self.path:
                observation = observation[key]
            return np.asarray(observation)
        except (KeyError, IndexError, TypeError, ValueError):
            raise _Misfit("structure", self, got=type(observation).__name__) from None


class _Misfit(Exception):
    """An observation that does not fit its space: an env's, or one that a caller hands over.

    what: "shape", "dtype", "value" or "structure".  leaf: where.
    required, got: of the first three.
    """

    def __init__(self, what: str, leaf: _Leaf, required: Any = None, got: Any = None) -> None:
        super().__init__(what, required, got)
        self._what, self._required, self._got = what, required, got
        self._at = f" at {list(leaf.path)}" if leaf.path else ""

    def of_env(self, label: str, where: str = "") -> errors.EnvFailure:
        """where: what it came from, as the end of the message."""
        said = f"changed its observation {self._what}{self._at}"
        if self._what == "value":
            said = f"gave the observation {self._got}{self._at}, which is not in {self._required}"
        elif self._required is not None:
            said += f" from {self._required} to {self._got}"
        return errors.EnvFailure(f"environment {label!r} {said}{where}")

    def of_caller(self, space: spaces.Space[Any]) -> ValueError:
        said = f"its structure{self._at} is another (a {self._got} is there)"
        if self._required is not None:
            said = f"{self._what}{self._at} must be {self._required}, got {self._got}"
        return ValueError(f"obs must be one of {shorten(space)} or a batch of them: {said}")


class ObservationEncoder:
    """Turns a vector env's observations into one stored array per vector step.

    The result of `encode` is always a copy: vector envs may reuse their buffers.

    spec: how one observation is stored.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        label: str,
        stack: int = 1,
        padding: Literal["zero", "repeat"] = "zero",
    ) -> None:
        """Chooses the encoding.

        space: of a single observation, one frame where they are stacked.
        label: names the env in messages.
        stack, padding: see `ObservationSpec`.

        Raises UnsupportedSpaceError: Text, Graph, Sequence, OneOf, a custom space, a dtype that is
        no number, a space without elements, or no Box where frames are stacked.
        """
        self._space, self._label = space, label
        self._leaves = list(_leaves(space, label))
        if stack > 1 and not isinstance(space, spaces.Box):
            raise errors.UnsupportedSpaceError(
                f"environment {label!r} has the observation space {shorten(space)}, but "
                f"env.frame_stack is {stack}: only Box observations are stacked; leave it at 1"
            )
        frame = _spec(space, self._leaves[-1].stop)
        self.spec = dataclasses.replace(frame, stack=stack, padding=padding)
        self._dtype = np.dtype(self.spec.dtype)
        self._is_array = isinstance(space, (spaces.Box, spaces.MultiBinary, spaces.Discrete))

    def encode(self, batch: Any, num_rows: int) -> np.ndarray:
        """`[num_rows, *shape]` in the stored dtype.

        batch: observations as a vector env gives them: each array of the space with
          `num_rows` as its leading axis.

        Raises EnvFailure: the observation does not have the space's structure, shape or kind of
        dtype, or a discrete value is out of range.
        """
        try:
            return self._stored([leaf.read(batch, (num_rows,)) for leaf in self._leaves], num_rows)
        except _Misfit as misfit:
            raise misfit.of_env(self._label) from None

    def encode_given(self, obs: Any) -> tuple[np.ndarray, bool]:
        """`[N, *shape]` in the stored dtype of what a caller hands over, and whether it is single.

        obs: one observation of the space, or a batch of N as a vector env gives them.

        Raises ValueError: it is neither.
        """
        first = self._leaves[0]
        try:
            shape, own = first.find(obs).shape, len(first.space.shape or ())
            lead = shape[:1] if len(shape) > own else ()
            num_rows = lead[0] if lead else 1
            values = [leaf.read(obs, lead) for leaf in self._leaves]
            rows = [value if lead else value[None] for value in values]
            return self._stored(rows, num_rows), not lead
        except _Misfit as misfit:
            raise misfit.of_caller(self._space) from None

    def encode_final(self, info: Mapping[str, Any], ended: np.ndarray) -> np.ndarray:
        """`[E, *shape]` final observations of the E envs in `ended` `[N]` bool.

        A vector env that resets in the same step returns the next episode's first
        observation; learning from that would bootstrap across episodes. Gymnasium's own give
        the last ones in `info["final_obs"]` as `[N]` objects, each an observation or None;
        native ones also batched like those of `step`.

        Raises EnvFailure: an episode ended without a final observation, or with one that breaks the
        space.
        """
        final: Any = info.get("final_obs")
        envs = np.flatnonzero(ended)
        one_by_one = isinstance(final, np.ndarray) and final.dtype.kind == "O"
        rows = list(final[ended]) if one_by_one else []
        if final is None or any(row is None for row in rows):
            raise errors.EnvFailure(
                f"environment {self._label!r} resets in the same step but gave no "
                f"info['final_obs'] (env {envs[0]}): how the episode ended is not known"
            )
        if not one_by_one:
            return self.encode(final, len(ended))[ended]
        out = create_empty_array(self._space, len(rows))
        return self.encode(self.joined(rows, "step", envs, out), len(rows))

    def joined(self, rows: Sequence[Any], where: str, envs: Iterable[int], out: Any) -> Any:
        """Single observations of `envs` as one batch of the space, written to `out`.
        Raises EnvFailure: one does not fit; names its env, and `where` it came from."""
        try:
            return concatenate(self._space, rows, out)
        except Exception as error:
            for env, row in zip(envs, rows, strict=True):
                try:
                    for leaf in self._leaves:
                        leaf.read(row)
                except _Misfit as misfit:
                    raise misfit.of_env(self._label, f" in {where} (env {env})") from None
            raise env_error(self._label, where, error) from error

    def _stored(self, values: Sequence[np.ndarray], num_rows: int) -> np.ndarray:
        """`[num_rows, *shape]`, a copy, of the leaves' `[num_rows, ...]` arrays.
        Raises _Misfit: a discrete value is out of range."""
        if self._is_array:
            (array,) = values
            if self.spec.num_categories:
                array = self._indices(self._leaves[0], array)
            return np.array(array, self._dtype)
        out = np.zeros((num_rows, *self.spec.shape), self._dtype)
        rows = np.arange(num_rows)[:, None]
        for leaf, array in zip(self._leaves, values, strict=True):
            if leaf.one_hot is None:
                out[:, leaf.start : leaf.stop] = array.reshape(num_rows, -1)
            else:
                indices = self._indices(leaf, array).reshape(num_rows, -1)
                out[rows, leaf.one_hot + indices] = 1.0
        return out

    def _indices(self, leaf: _Leaf, values: np.ndarray) -> np.ndarray:
        """Values of a Discrete or MultiDiscrete leaf counted from 0, in range."""
        space = leaf.space
        indices = values.astype(np.int64) - space.start
        sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
        outside = (indices < 0) | (indices >= sizes)
        if outside.any():
            raise _Misfit("value", leaf, shorten(space), values[outside][0])
        return indices


def _leaves(
    space: spaces.Space[Any], label: str, path: tuple[Any, ...] = (), start: int = 0
) -> Iterator[_Leaf]:
    """Arrays of a space in the order in which `gymnasium.spaces.flatten` joins them."""
    if isinstance(space, spaces.Dict):
        parts: list[tuple[Any, spaces.Space[Any]]] = list(space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        parts = list(enumerate(space.spaces))
    else:
        _require_supported(space, label)
        one_hot = _one_hot_columns(space, start)
        yield _Leaf(path, space, start, start + spaces.flatdim(space), one_hot)
        return
    if not parts:
        raise _unsupported(space, label)
    for key, part in parts:
        for leaf in _leaves(part, label, (*path, key), start):
            yield leaf
            start = leaf.stop


def _spec(space: spaces.Space[Any], num_columns: int) -> ObservationSpec:
    if isinstance(space, spaces.Discrete):
        return ObservationSpec((), "int32", num_categories=int(space.n))
    if not isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return ObservationSpec((num_columns,), "float32")
    image = space.dtype == np.uint8 and len(space.shape) in (2, 3)
    scale = 1 / 255 if image and np.all(space.high == 255) else 1.0  # type: ignore[union-attr]
    stored = {"bool": "uint8", "float64": "float32", "float128": "float32"}
    dtype = np.dtype(space.dtype).name
    return ObservationSpec(tuple(space.shape), stored.get(dtype, dtype), scale=scale)


def _require_supported(space: spaces.Space[Any], label: str) -> None:
    supported = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
    if (
        not isinstance(space, supported)
        or np.dtype(space.dtype).kind not in "biuf"
        or not 0 < spaces.flatdim(space) <= np.iinfo(np.int32).max  # indices are int32
    ):
        raise _unsupported(space, label)


def _unsupported(space: spaces.Space[Any], label: str) -> errors.UnsupportedSpaceError:
    return errors.UnsupportedSpaceError(
        f"environment {label!r} has the observation space {shorten(space)}; distdqn "
        "supports Box, Discrete, MultiBinary, MultiDiscrete, and Dict or Tuple of these"
    )


def _one_hot_columns(space: spaces.Space[Any], start: int) -> np.ndarray | None:
    if isinstance(space, spaces.Discrete):
        return np.array([start])
    if isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.ravel()
        return start + np.cumsum(sizes) - sizes
    return None


def stacked_space(space: spaces.Space[Any], stack: int) -> spaces.Space[Any]:
    """The space of one observation: `[stack, *shape]`, or `space` for a stack of 1.

    It holds zeros too, which may stand before an episode's first frame.
    """
    if stack == 1:
        return space
    assert isinstance(space, spaces.Box), space
    low = np.repeat(np.minimum(space.low, 0)[None], stack, axis=0).astype(space.dtype)
    high = np.repeat(np.maximum(space.high, 0)[None], stack, axis=0).astype(space.dtype)
    return spaces.Box(low, high, dtype=space.dtype)
