"""Minibatches through slots of memory: contents, reuse, and the order on two streams."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from learner_parts import needs_gpu

from distdqn.learning.staging import Staging, has_bfloat16

CPU = torch.device("cpu")


def arrays(seed, k=5):
    rng = np.random.default_rng(seed)
    obs, actions = rng.integers(0, 256, (k, 3, 2), np.uint8), rng.integers(9, size=(k, 3))
    for array in (obs, actions):
        array.flags.writeable = False  # as from shared memory
    return [obs, actions]


@pytest.mark.parametrize("num_slots", [1, 2, 3, 7])
def test_every_minibatch_arrives_as_it_was_sent(num_slots):
    staging = Staging(CPU, num_slots)
    for seed in range(3):
        sent = arrays(seed)
        got = staging.minibatches(sent, [torch.uint8, torch.int64])
        for k, (obs, actions) in enumerate(got):
            assert np.array_equal(obs.numpy(), sent[0][k])
            assert np.array_equal(actions.numpy(), sent[1][k])
        assert k == 4


def test_arrays_are_cast_to_the_dtypes_asked_for():
    ((obs, actions),) = Staging(CPU).minibatches(arrays(0, 1), [torch.float64, torch.int32])
    assert obs.dtype == torch.float64 and actions.dtype == torch.int32


def test_memory_is_used_again_while_the_layout_stays():
    staging, dtypes = Staging(CPU, 2), [torch.uint8, torch.int64]
    first = [obs.data_ptr() for obs, _ in staging.minibatches(arrays(0), dtypes)]
    again = [obs.data_ptr() for obs, _ in staging.minibatches(arrays(1, 3), dtypes)]
    assert first[:3] == again and len(set(first)) == 2
    other = [obs for obs, _ in staging.minibatches(arrays(0), [torch.int16, torch.int64])]
    assert other[0].dtype == torch.int16


def test_a_slot_is_filled_after_its_copy_and_sent_after_its_update(monkeypatch):
    """With fake streams that write down what is asked of them."""
    events = []

    class Event:
        count = 0

        def __init__(self):
            slot, kind = divmod(Event.count, 2)
            self.name, Event.count = f"{('copied', 'used')[kind]}{slot}", Event.count + 1

        def record(self, stream):
            events.append(f"{stream.name} records {self.name}")

        def synchronize(self):
            events.append(f"host waits for {self.name}")

    class Stream:
        def __init__(self, name="copy"):
            self.name = name

        def wait_event(self, event):
            events.append(f"{self.name} waits for {event.name}")

    main = Stream("main")
    fake = types.SimpleNamespace(
        Event=Event,
        Stream=Stream,
        stream=lambda stream: torch.no_grad(),
        current_stream=lambda: main,
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    staging = Staging(CPU, 2)
    make_slot = staging.make_slot

    def make_slot_with_two_memories(layout):
        slot = make_slot(layout)
        slot.device = tuple(torch.empty_like(x) for x in slot.host)
        return slot

    staging.make_slot = make_slot_with_two_memories
    sent = arrays(0, 3)
    for k, (obs, _) in enumerate(staging.minibatches(sent, [torch.uint8, torch.int64])):
        events.append(f"update {k}")
        assert np.array_equal(obs.numpy(), sent[0][k])
    assert events == [
        line
        for k, slot in ((0, 0), (1, 1), (2, 0))
        for line in (
            f"host waits for copied{slot}",
            f"copy waits for used{slot}",
            f"copy records copied{slot}",
            f"main waits for copied{slot}",
            f"update {k}",
            f"main records used{slot}",
        )
    ]


@needs_gpu
def test_minibatches_arrive_on_a_gpu_while_it_computes():
    staging, device = Staging(torch.device("cuda")), torch.device("cuda")
    busy = torch.rand(2000, 2000, device=device)
    sums, sent = [], arrays(0, 50)
    for obs, _ in staging.minibatches(sent, [torch.uint8, torch.int64]):
        busy = busy @ busy / 1000
        sums.append(obs.long().sum() + 0 * busy.sum().long())
    assert torch.stack(sums).tolist() == sent[0].sum((1, 2), dtype=np.int64).tolist()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", True),
        ("flags : fpu amx_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2 avx512f", False),
        ("", True),  # nothing is known: nothing is said
    ],
)
def test_bfloat16_is_looked_up_in_the_cpus_flags(monkeypatch, flags, expected):
    monkeypatch.setattr("distdqn.learning.staging.cpu_flags", lambda: flags)
    assert has_bfloat16(torch.device("cpu")) is expected
