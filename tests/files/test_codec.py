"""What is encoded comes back; all else is refused, whatever the bytes are."""

from __future__ import annotations

import contextlib
import math
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distdqn.errors import CodecError
from distdqn.files.codec import MAX_DEPTH, MAX_LENGTH, VERSION, decode, encode

DTYPES = ["bool", "int8", ">i2", "int32", "int64", "uint8", "uint16", ">u4", "uint64"]
DTYPES += ["float16", "float32", ">f8"]
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)
VALUES = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(got: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        assert type(got) is np.ndarray and got.shape == value.shape
        assert got.dtype == value.dtype.newbyteorder("<")
        assert got.tobytes() == value.astype(got.dtype).tobytes()  # NaNs and signed zeros too
    elif isinstance(value, dict):
        assert type(got) is dict and list(got) == list(value)
        for key in value:
            assert_same(got[key], value[key])
    elif isinstance(value, (list, tuple)):
        assert type(got) is list and len(got) == len(value)
        for one, other in zip(got, value, strict=True):
            assert_same(one, other)
    elif isinstance(value, float) and math.isnan(value):
        assert type(got) is float and math.isnan(got)
    else:
        assert type(got) is type(value) and got == value


@settings(deadline=None, max_examples=200)
@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    data = encode(value)
    assert type(data) is bytes
    assert_same(decode(data), value)
    assert encode(decode(data)) == data


@settings(deadline=None, max_examples=200)
@given(VALUES, st.data())
def test_harmed_data_decodes_or_is_refused_and_nothing_else(value: Any, data: Any) -> None:
    harmed = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(harmed)))
        kind = data.draw(st.sampled_from(["change", "cut", "insert", "remove"]))
        if kind == "change" and at < len(harmed):
            harmed[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del harmed[at:]
        elif kind == "insert":
            harmed[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            del harmed[at : at + 3]
    try:
        decoded = decode(bytes(harmed))
    except CodecError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert_same(decode(encode(decoded)), decoded)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for candidate in (data, b"\x92\x01" + data):
        with contextlib.suppress(CodecError):
            decode(candidate)


@settings(deadline=None, max_examples=50)
@given(VALUES)
def test_every_truncation_and_every_byte_left_over_is_refused(value: Any) -> None:
    data = encode(value)
    for end in range(len(data)):
        with pytest.raises(CodecError):
            decode(data[:end])
    with pytest.raises(CodecError, match="extra data"):
        decode(data + b"\x00")


def test_an_array_is_written_as_documented() -> None:
    expected = b"\x92\x01"  # a list of two: version 1, and
    expected += b"\xc7\x2c\x01"  # ext 8 of 32 + 12 bytes, type 1:
    expected += b"\x02<i2" + bytes(4)  # rank 2, little-endian int16
    expected += struct.pack("<QQ", 2, 3) + bytes(8)  # 2 x 3, and up to a multiple of 16
    expected += struct.pack("<6h", 0, 1, 2, 3, 4, -5)
    columns_first = np.array([[0, 3], [1, 4], [2, -5]], ">i2").T

    assert encode(columns_first) == expected


def test_decoded_arrays_are_read_only_aligned_and_of_their_own() -> None:
    data = bytearray(encode(["x", np.arange(5.0), np.arange(3, dtype=np.uint8)]))
    _, first, second = decode(data)
    data[:] = bytes(len(data))
    for array in (first, second):
        assert array.flags.aligned and not array.flags.writeable
    assert first.tolist() == [0, 1, 2, 3, 4] and second.tolist() == [0, 1, 2]


def test_the_rest_of_msgpack_reads_what_has_no_array() -> None:
    value = {"a": [1, 2.5, None], "b": b"bytes"}
    assert msgpack.unpackb(encode(value)) == [VERSION, value]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**64, "an int must lie in .* got one of 65 bits"),
        (-(2**63) - 1, "an int must lie in"),
        (np.float64(1.0), "or an array, got float64"),
        (object(), "or an array, got object"),
        (np.array([object()]), "up to 8 bytes, got object"),
        (np.zeros(2, "datetime64[s]"), "up to 8 bytes, got datetime64"),
        (np.zeros(2, [("a", "i4")]), "up to 8 bytes, got .*'a'"),
        (msgpack.Timestamp(1), "or an array, got Timestamp"),
        (msgpack.ExtType(5, b""), "or an array, got ExtType"),
        ({1: 2}, "keys must be str, got 1"),
        ([0] * (MAX_LENGTH + 1), f"list must have at most {MAX_LENGTH} entries"),
        ("\ud800", "surrogates"),
    ],
)
def test_a_value_without_a_place_is_refused(value: Any, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        encode({"inside": [value]})


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="NumPy 1 makes no array of more axes"
)
def test_an_array_with_more_axes_than_numpy_1_has_is_refused() -> None:
    with pytest.raises(CodecError, match="at most 32 axes, got 33"):
        encode(np.zeros((1,) * 33))


def test_nesting_has_a_limit_on_both_ways() -> None:
    deepest: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        deepest = [deepest]
    assert decode(encode(deepest)) == deepest
    for refuse in (lambda: encode([deepest]), lambda: decode(msgpack.packb([1, [deepest]]))):
        with pytest.raises(CodecError, match=f"nested deeper than {MAX_DEPTH}"):
            refuse()


def array_message(rank: int, dtype: bytes, shape: tuple[int, ...], elements: bytes) -> bytes:
    header = struct.pack(f"<B3s4x{len(shape)}Q", rank, dtype, *shape)
    payload = header + bytes(-len(header) % 16) + elements
    return msgpack.packb([VERSION, msgpack.ExtType(1, payload)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a distdqn message"),
        (b"\x80\x04]\x94.", "not a distdqn message"),  # a pickle
        (b"\x92\x02\xc0", "version 2, this distdqn reads version 1"),
        (b"\x92\x01\xd4\x05\x00", "unknown type 5"),
        (b"\x92\x01\xd6\xff\x00\x00\x00\x00", "got Timestamp"),
        (b"\x92\x01\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x92\x01\x81\xc4\x01a\x02", "keys must be str"),
        (b"\x92\x01\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (b"\x92\x01\xdf\xff\xff\xff\xff", "exceeds max_map_len"),
        (b"\x92\x01\xc6\xff\xff\xff\xff", "incomplete"),
        (b"\x92\x01" + b"\xdc\x3f\xff" * 2_000, "StackError"),
        (array_message(1, b"|O8", (1,), bytes(8)), "unknown kind"),
        (array_message(1, b">f4", (1,), bytes(4)), "unknown kind"),
        (array_message(40, b"<f4", (1,) * 40, bytes(4)), "unknown kind"),
        (array_message(2, b"<f4", (), b""), "unknown kind"),
        (array_message(1, b"<f4", (3,), bytes(8)), "takes 28 bytes, got 24"),
        (array_message(2, b"<f8", (2**40, 2**40), b""), "got 32"),
        (array_message(2, b"<f8", (0, 2**63), b""), "truncated or altered"),
        (array_message(3, b"<f8", (0, 2**62, 2**62), b""), "truncated or altered"),
        (array_message(1, b"<f4", (1,), bytes(4)).replace(bytes(4), b"\0\1\0\0", 1), "takes 20"),
        (array_message(1, b"|b1", (2,), b"\x01\x02"), "other than 0 and 1"),
    ],
)
def test_data_that_encode_never_writes_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode(data)
