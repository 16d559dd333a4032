"""What is drawn is read back from the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from distdqn.evaluation.video import BAR, CHOSEN, MIN_HEIGHT, PlayedEpisode, ValuePanel

PICTURE = np.full((210, 160, 3), 200, np.uint8)


def episode(values, actions=None, names=None, allowed=None):
    values = np.asarray(values, np.float32)
    num_steps, num_actions = values.shape
    return PlayedEpisode(
        values=values,
        actions=np.zeros(num_steps, int) if actions is None else np.array(actions),
        returns=np.arange(num_steps, dtype=float),
        allowed=np.ones(values.shape, bool) if allowed is None else np.array(allowed),
        names=names or [str(i) for i in range(num_actions)],
    )


def bars(image, colour):
    """Top row and length of each bar of a colour, from the top; without the curve."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    lengths = (image[: image.shape[0] // 2] == rgb).all(axis=2).sum(axis=1)
    is_bar = lengths > 3
    tops = np.flatnonzero(is_bar & ~np.append(False, is_bar[:-1]))
    return [(int(top), int(lengths[top + 2])) for top in tops]


def test_the_picture_is_enlarged_and_stands_beside_the_values():
    image = ValuePanel(episode([[1.0, 2.0]]), PICTURE.shape).draw(PICTURE, 0)
    assert image.dtype == np.uint8 and image.shape[0] >= MIN_HEIGHT
    assert (image[:420, :320] == 200).all() and not (image[:, 320:] == 200).all(axis=2).any()


def test_a_bar_is_as_long_as_its_value_and_the_chosen_one_stands_out():
    panel = ValuePanel(episode([[0.0, 5.0], [10.0, 5.0]], actions=[1, 0]), PICTURE.shape)
    first, second = (panel.draw(PICTURE, step) for step in (0, 1))
    (top, half), (_, shortest) = bars(first, CHOSEN)[0], bars(first, BAR)[0]
    (chosen_top, longest), (other_top, half_again) = bars(second, CHOSEN)[0], bars(second, BAR)[0]
    assert half == half_again and top == other_top > chosen_top  # one scale for both steps
    # Values 0, 5, 10 on a scale from -0.5 to 10.5.
    assert shortest / half == pytest.approx(0.5 / 5.5, abs=0.03)
    assert longest / half == pytest.approx(10.5 / 5.5, abs=0.05)


def test_pictures_differ_in_what_has_changed_alone():
    panel = ValuePanel(episode([[0.0, 5.0]] * 3), PICTURE.shape)
    first, again, later = (panel.draw(PICTURE, step) for step in (0, 0, 2))
    np.testing.assert_array_equal(first, again)
    changed = np.flatnonzero((first != later).any(axis=(1, 2)))
    assert changed.min() < 52  # step and return
    assert not ((changed > 52) & (changed < 120)).any()  # the bars


def test_of_many_actions_the_best_are_drawn():
    values = np.linspace(0, 1, 50)[None]
    image = ValuePanel(episode(values, actions=[49]), PICTURE.shape).draw(PICTURE, 0)
    chosen, others = bars(image, CHOSEN), bars(image, BAR)
    assert len(chosen) == 1 and chosen[0][0] < others[0][0]
    lengths = [length for _, length in others]
    assert lengths == sorted(lengths, reverse=True) and min(lengths) > chosen[0][1] / 2


@pytest.mark.parametrize("shape", [(10, 10, 3), (401, 601, 3), (210, 160, 3), (1001, 3, 3)])
def test_both_sides_are_even(shape):
    image = ValuePanel(episode([[0.0]]), shape).draw(np.zeros(shape, np.uint8), 0)
    assert image.shape[0] % 2 == image.shape[1] % 2 == 0 and image.shape[0] >= MIN_HEIGHT


@pytest.mark.parametrize(
    "values",
    [
        [[0.0, 0.0]],
        [[1e30, -1e30], [np.inf, 1.0]],
        [[np.nan, np.nan], [1.0, -np.inf]],
        np.random.default_rng(0).normal(size=(5000, 3)),
    ],
)
def test_any_values_can_be_drawn(values):
    played = episode(values, names=["a name that is far too long for its place", "", "c"])
    panel = ValuePanel(played, PICTURE.shape)
    for step in (0, len(played.values) - 1):
        assert panel.draw(PICTURE, step).shape[2] == 3


def test_an_action_that_is_not_allowed_has_no_bar_of_its_own_colour():
    played = episode([[0.0, 5.0, 2.0]], actions=[2], allowed=[[True, False, True]])
    image = ValuePanel(played, PICTURE.shape).draw(PICTURE, 0)
    assert len(bars(image, BAR)) == 1
