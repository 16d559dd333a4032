"""The one msgpack encoding of what leaves a process other than through Ray.

Nothing is executed while reading, and whatever the reader does not know is refused, so
data of unknown origin can be decoded.

    message   [VERSION, value]                                        plain msgpack
    value     nil, bool, int, float64, str, bin, array, map with str keys, or
    ndarray   ext type 1:  rank u8 | dtype 3 bytes ("<f4") | 4 zeros | rank x u64 sizes
                           | zeros up to a multiple of 16 | the elements
              all little-endian, elements in C order
"""

import math
import struct
from typing import Any

import msgpack
import numpy as np

from distdqn.errors import CodecError

VERSION = 1
MAX_DEPTH = 64
MAX_LENGTH = 2**14  # of a list or dict: msgpack makes room for what a header claims, at every depth

_ARRAY = 1
_MAX_BYTES = 2**32 - 1  # of one msgpack value
_MAX_RANK = 32
_ALIGNMENT = 16
_BEGINNING = bytes([0x92, VERSION])  # msgpack: a list of two, the first of them VERSION
_NAMES = ("|b1", "|i1", "|u1", "<i2", "<i4", "<i8", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8")
_DTYPES = {name.encode(): np.dtype(name) for name in _NAMES}


def encode(value: Any) -> bytes:
    """`value` as a message.

    value: dict with str keys, list, tuple (comes back as a list), str, bytes, int of at
      most 64 bits, float, bool, None, or an array of bool, int, uint or float; nested up
      to 64 deep, at most 16,384 entries in a list or dict, 4 GiB in an array.

    Raises CodecError for anything else.
    """
    _check(value)
    try:
        return msgpack.packb([VERSION, value], default=_pack_array)
    except (ValueError, OverflowError) as error:
        raise CodecError(f"cannot encode: {error}") from error


def decode(data: bytes | bytearray | memoryview) -> Any:
    """The value of a message.

    Arrays are read-only and aligned, each over memory of its own (it does not pin
    `data`): copy one to write to it.

    Raises CodecError for data that `encode` would not have written: of another version,
    truncated, with bytes left over, of an unknown type, or with sizes that do not fit.
    Before it can, it has taken at most a small multiple of the data's length and 128 MiB.
    """
    beginning = bytes(data[:2])
    if beginning != _BEGINNING:
        if len(beginning) == 2 and beginning[0] == _BEGINNING[0] and beginning[1] < 0x80:
            raise CodecError(
                f"data has encoding version {beginning[1]}, this distdqn reads version "
                f"{VERSION}: use the distdqn that wrote it"
            )
        raise CodecError("data is not a distdqn message: its first two bytes are others")
    try:
        _, value = msgpack.unpackb(
            data,
            ext_hook=_unpack_array,
            object_pairs_hook=_unpack_dict,
            max_array_len=MAX_LENGTH,
            max_map_len=MAX_LENGTH,
        )
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise CodecError(
            f"data is truncated or altered: {str(error) or type(error).__name__}"
        ) from error
    _check(value)
    return value


def _check(value: Any, depth: int = 0) -> None:
    """Refuses what the encoding has no place for, the same on both ways.

    Exact types: a subclass (a numpy float, an enum) would come back as another type.
    """
    kind = type(value)
    if kind in (dict, list, tuple):
        if depth == MAX_DEPTH:
            raise CodecError(f"value is nested deeper than {MAX_DEPTH}: required a flatter one")
        if len(value) > MAX_LENGTH:
            raise CodecError(
                f"{kind.__name__} must have at most {MAX_LENGTH} entries, got {len(value)}: "
                "put numbers into an array"
            )
        if kind is dict and (wrong := [key for key in value if type(key) is not str]):
            raise CodecError(f"keys must be str, got {wrong[0]!r}")
        for inner in value.values() if kind is dict else value:
            _check(inner, depth + 1)
    elif kind not in (str, bytes, int, float, bool, type(None), np.ndarray):
        raise CodecError(
            f"value must be dict, list, tuple, str, bytes, int, float, bool, None or an array, "
            f"got {kind.__name__}"
        )
    elif kind is int and not -(2**63) <= value < 2**64:
        raise CodecError(f"an int must lie in [-2^63, 2^64), got one of {value.bit_length()} bits")


def _pack_array(array: np.ndarray) -> msgpack.ExtType:
    little = array.dtype.newbyteorder("<")
    name = little.str.encode()
    if name not in _DTYPES:
        raise CodecError(
            f"an array must be of bool, int, uint or float of up to 8 bytes, got {array.dtype}"
        )
    if array.ndim > _MAX_RANK:
        raise CodecError(f"an array must have at most {_MAX_RANK} axes, got {array.ndim}")
    header = _header(name, array.shape)
    size = len(header) + array.nbytes
    if size > _MAX_BYTES:
        raise CodecError(f"an array must take at most {_MAX_BYTES} bytes, got {size}: split it")
    elements = np.ascontiguousarray(array, little).data if array.size else b""
    return msgpack.ExtType(_ARRAY, b"".join((header, elements)))


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != _ARRAY:
        raise CodecError(f"data holds a value of unknown type {code}")
    rank = data[0] if data else 0
    known = len(data) >= 8 + 8 * rank and rank <= _MAX_RANK and data[1:4] in _DTYPES
    if not known:
        raise CodecError(f"data holds an array of unknown kind {data[:4]!r}")
    name, shape = data[1:4], struct.unpack_from(f"<{rank}Q", data, 8)
    header = _header(name, shape)
    size = len(header) + math.prod(shape) * _DTYPES[name].itemsize
    if len(data) != size or data[: len(header)] != header:
        raise CodecError(
            f"an array of shape {shape} and dtype {name.decode()} takes {size} bytes, got "
            f"{len(data)}"
        )
    array = np.ndarray(shape, _DTYPES[name], buffer=data, offset=len(header))
    if name == b"|b1" and array.view(np.uint8).max(initial=0) > 1:
        raise CodecError("an array of bool holds a byte other than 0 and 1")
    return array


def _header(name: bytes, shape: tuple[int, ...]) -> bytes:
    """What stands before the elements of an array, its length a multiple of the alignment."""
    header = struct.pack(f"<B3s4x{len(shape)}Q", len(shape), name, *shape)
    return header + bytes(-len(header) % _ALIGNMENT)


def _unpack_dict(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise CodecError("data holds a dict with the same key twice")
    return entries
