"""Torsos for pictures: sizes by hand, and a plain module on floats."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distdqn.networks.pictures import picture_of, suited_torso
from distdqn.networks.q_network import as_picture, check_network, make_network
from distdqn.types import ObservationSpec

ATARI = ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4)
MINATAR = ObservationSpec((10, 10, 4), "uint8")


def bytes_of(observation, num=3, high=256):
    generator = torch.Generator().manual_seed(1)
    shape = (num, *observation.obs_shape)
    return torch.randint(high, shape, dtype=torch.uint8, generator=generator)


def copied(network, plain):
    with torch.no_grad():
        for own, other in zip(plain.parameters(), network.parameters(), strict=True):
            own.copy_(other)
    return plain


def plain_nature(channels, num_actions):
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 8, 4), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, num_actions)),
    )


def plain_minatar(channels, num_actions):
    return nn.Sequential(
        *(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, num_actions)),
    )


def test_nature_has_the_layers_of_mnih_2015():
    shapes = [tuple(p.shape) for p in make_network(ATARI, 18, torso="nature").parameters()]
    assert shapes[::2] == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136), (18, 512)]
    # 4*64*32+32 + 32*16*64+64 + 64*9*64+64 + 3136*512+512 + 512*18+18
    count = 8224 + 32832 + 36928 + 1606144 + 9234
    assert sum(p.numel() for p in make_network(ATARI, 18, torso="nature").parameters()) == count


def test_minatar_has_the_layers_of_young_and_tian_2019():
    network = make_network(MINATAR, 6, torso="minatar")
    shapes = [tuple(p.shape) for p in network.parameters()]
    assert shapes[::2] == [(16, 4, 3, 3), (128, 1024), (6, 128)]
    # 4*9*16+16 + 1024*128+128 + 128*6+6
    assert sum(p.numel() for p in network.parameters()) == 592 + 131200 + 774


@pytest.mark.parametrize(
    ("observation", "torso", "make_plain", "as_floats"),
    [
        (ATARI, "nature", plain_nature, lambda obs: obs.float() / 255),
        (MINATAR, "minatar", plain_minatar, lambda obs: obs.float().permute(0, 3, 1, 2)),
    ],
    ids=["nature", "minatar"],
)
def test_values_and_gradients_are_those_of_plain_modules_on_floats(
    observation, torso, make_plain, as_floats
):
    torch.manual_seed(0)
    network = make_network(observation, 4, torso=torso)
    plain = copied(network, make_plain(4, 4))
    obs = bytes_of(observation, high=256 if observation is ATARI else 2)
    q, expected = network(obs), plain(as_floats(obs))
    torch.testing.assert_close(q, expected, rtol=1e-4, atol=1e-6)
    for values in (q, expected):
        (values * torch.arange(4.0)).square().sum().backward()
    for own, other in zip(network.parameters(), plain.parameters(), strict=True):
        error = (own.grad - other.grad).norm() / other.grad.norm()
        assert error < 1e-5


def test_no_gradient_of_the_observation_is_computed():
    network = make_network(ATARI, 4, torso="nature")
    q = network(bytes_of(ATARI))
    node, masks = q.grad_fn, []
    pending = [node]
    while pending:
        node = pending.pop()
        if node is not None:
            if "Convolution" in node.name():
                masks.append(node.next_functions[0][0] is not None)
            pending += [parent for parent, _ in node.next_functions]
    assert sorted(masks) == [False, True, True]  # the first layer's input has none


@pytest.mark.parametrize(("observation", "torso"), [(ATARI, "nature"), (MINATAR, "minatar")])
def test_every_convolution_reads_channels_last_memory(monkeypatch, observation, torso):
    last, convolve = [], torch.nn.functional.conv2d

    def conv2d(x, weight, *rest):
        last.extend(y.is_contiguous(memory_format=torch.channels_last) for y in (x, weight))
        return convolve(x, weight, *rest)

    network = make_network(observation, 4, torso=torso)
    monkeypatch.setattr("distdqn.networks.q_network.F.conv2d", conv2d)
    network(bytes_of(observation))
    assert last == [True] * 2 * len(network.torso.convs)


@pytest.mark.parametrize(
    ("shape", "stack", "expected"),
    [
        ((84, 84), 4, (4, 84, 84)),
        ((84, 84), 1, (1, 84, 84)),
        ((84, 80, 3), 1, (3, 84, 80)),
        ((3, 84, 80), 1, (3, 84, 80)),
        ((84, 84, 3), 4, (12, 84, 84)),
        ((3, 84, 84), 4, (12, 84, 84)),
        ((10, 10, 10), 1, (10, 10, 10)),
    ],
)
def test_the_layout_of_a_picture_follows_from_its_shape(shape, stack, expected):
    observation = ObservationSpec(shape, "uint8", stack=stack)
    assert picture_of(observation) == expected
    assert as_picture(bytes_of(observation, 2), observation).shape == (2, *expected)


def test_a_stack_of_coloured_frames_becomes_channels_frame_by_frame():
    observation = ObservationSpec((5, 4, 3), "uint8", stack=2)
    obs = bytes_of(observation)
    picture = as_picture(obs, observation)
    for frame in range(2):
        for colour in range(3):
            assert torch.equal(picture[:, 3 * frame + colour], obs[:, frame, :, :, colour])


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (ATARI, "nature"),
        (ObservationSpec((84, 84), "uint8"), "nature"),
        (ObservationSpec((96, 96, 3), "uint8"), "nature"),
        (ObservationSpec((3, 40, 40), "uint8"), "nature"),
        (MINATAR, "minatar"),
        (ObservationSpec((7, 7, 3), "uint8"), "minatar"),
        (ObservationSpec((2, 8, 8), "uint8"), "mlp"),
        (ObservationSpec((10, 10), "uint8"), "mlp"),
        (ObservationSpec((128,), "uint8", stack=4), "mlp"),
        (ObservationSpec((84, 84, 3), "float32"), "mlp"),
        (ObservationSpec((), "int32", num_categories=16), "mlp"),
        (ObservationSpec((4,), "float32"), "mlp"),
    ],
)
def test_auto_takes_pictures_to_convolutions_and_all_else_to_an_mlp(observation, expected):
    assert suited_torso(observation) == expected
    named, chosen = (make_network(observation, 2, torso=torso) for torso in (expected, "auto"))
    assert [p.shape for p in named.parameters()] == [p.shape for p in chosen.parameters()]
    check_network(chosen, observation, 2)


@pytest.mark.parametrize(
    ("observation", "torso", "message"),
    [
        (MINATAR, "nature", "torso nature needs pictures of at least 36x36, got 10x10; use"),
        (ObservationSpec((2, 2, 1), "uint8"), "minatar", "pictures of at least 3x3, got 2x2; use"),
        (ObservationSpec((4,), "float32"), "nature", r"frames of shape \[4\] are no pictures"),
        (ObservationSpec((), "int32", num_categories=3), "minatar", "are no pictures: required"),
    ],
)
def test_what_is_no_picture_or_too_small_is_refused_in_one_line(observation, torso, message):
    with pytest.raises(ValueError, match=message) as caught:
        make_network(observation, 3, torso=torso)
    assert "\n" not in str(caught.value) and "--network.torso" in str(caught.value)


@pytest.mark.parametrize("dueling", [False, True])
def test_under_autocast_layers_round_and_the_head_does_not(dueling):
    torch.manual_seed(0)
    network = make_network(ATARI, 4, torso="nature", dueling=dueling)
    obs, features = bytes_of(ATARI), []
    network.torso.register_forward_hook(lambda *call: features.append(call[2]))
    exact = network(obs)
    with torch.autocast("cpu", torch.bfloat16):
        q = network(obs)
    assert features[1].dtype == torch.bfloat16 and q.dtype == torch.float32
    torch.testing.assert_close(q, network.head(features[1].float()))
    assert not torch.equal(q, q.bfloat16().float())
    torch.testing.assert_close(q, exact, rtol=0, atol=0.02 * exact.abs().max().item())
    assert not torch.equal(q, exact)


def test_bytes_stay_exact_in_bfloat16():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(values.to(torch.bfloat16).float(), values.float())
    scaled = values.float() / 255
    assert not torch.equal(scaled.bfloat16().float(), scaled)
