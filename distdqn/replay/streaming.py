"""Stores that go around the cache.

A large array that is written once and read later by somebody else need not be fetched
into the cache in order to be overwritten, nor drive out of it what is of use there:
copies of tens of megabytes take about half the time. What fits into the cache is better
written there.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

STREAM_BYTES = 16  # of one store; its address must be a multiple of that
STREAMED_FROM_BYTES = 2**23  # smaller arrays are written through the cache

_VECTOR = ir.VectorType(ir.IntType(64), 2)
_ALIGNMENT_READ = 1


@intrinsic
def store_streaming(_: Any, target: Any, to: Any, source: Any, start: Any) -> Any:
    """target[to:] = source[start:], 16 bytes; for numba code, on flat contiguous arrays.

    target, source: of one dtype.  to, start: int64 indices; that of the target must lie
      at a multiple of 16 bytes.

    `finish_streaming` must follow before others read.
    """
    signature = types.void(target, types.int64, source, types.int64)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        places = []
        for kind, array, index in ((sig.args[0], args[0], args[1]), (sig.args[2], *args[2:])):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer()))
        value = builder.load(places[1], align=_ALIGNMENT_READ)
        store = builder.store(value, places[0], align=STREAM_BYTES)
        store.set_metadata(
            "nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def finish_streaming(_: Any) -> Any:
    """Makes what was stored visible in order: such stores overtake others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate
