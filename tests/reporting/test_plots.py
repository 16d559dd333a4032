"""The learning curve: what is drawn, from how much, and what is told beside it."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from distdqn.reporting import plots
from distdqn.reporting.plots import binned, plot_learning_curve, thinned, thousands

STEPS = np.arange(0, 60_000, 30)
RISING = np.stack([STEPS, STEPS / 200.0], axis=1)  # 0 to 300
EVALUATIONS = [(20_000, 90.0, 60.0, 120.0), (40_000, 200.0, 150.0, 260.0)]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the newest picture, once it is finished."""
    kept, finish = [], plots._finish

    def keep(axes, *rest):
        finish(axes, *rest)
        kept[:] = [axes]

    monkeypatch.setattr(plots, "_finish", keep)
    return kept


def legend(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lines(axes) -> int:
    return len(axes.lines)


def test_the_picture_is_wide_and_its_title_and_axes_say_what_it_is(tmp_path, drawn):
    path = plot_learning_curve(tmp_path / "curve.png", RISING, EVALUATIONS, "run · env · preset p")

    header = path.read_bytes()[:24]
    width, height = struct.unpack(">II", header[16:24])
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and width > 1000 and height > 500
    (axes,) = drawn
    assert axes.get_title(loc="left") == "run · env · preset p"
    assert axes.get_xlabel() == "env steps"
    assert axes.get_ylabel() == "return of an episode (raw rewards)"


def test_everything_that_is_drawn_stands_in_the_legend(tmp_path, drawn):
    plot_learning_curve(tmp_path / "curve.png", RISING, EVALUATIONS, "t", goal=250.0)
    assert legend(drawn[0]) == [
        "greedy evaluation: mean, range",
        "training episodes: median, 10 to 90 %",
        "goal 250",
    ]
    plot_learning_curve(tmp_path / "curve.png", RISING[:10], [], "t")
    assert legend(drawn[0]) == ["training episode"]


@pytest.mark.parametrize(
    ("goal", "text"), [(475.0, "goal 475, above"), (-400.0, "goal -400, below")]
)
def test_a_goal_out_of_reach_does_not_press_the_curve_flat(tmp_path, drawn, goal, text):
    flat = np.stack([STEPS, 1.0 + STEPS % 7], axis=1)
    plot_learning_curve(tmp_path / "curve.png", flat, [], "t", goal=goal)
    (axes,) = drawn
    low, high = axes.get_ylim()
    assert low > 0.0 and high < 9.0
    assert [each.get_text() for each in axes.texts] == [text]
    assert legend(axes) == ["training episodes: median, 10 to 90 %"]


def test_a_constant_return_has_an_axis_with_room_around_it(tmp_path, drawn):
    constant = np.stack([STEPS, np.ones(len(STEPS))], axis=1)
    plot_learning_curve(tmp_path / "curve.png", constant, [(1, 1.0, 1.0, 1.0)], "t", goal=475.0)
    assert drawn[0].get_ylim() == (0.0, 2.0)


def test_equal_returns_whose_mean_is_rounded_have_no_spread(tmp_path, drawn):
    returns = np.full(20, 0.93)
    mean = returns.mean() + np.spacing(0.93)
    evaluations = [(10, mean, returns.min(), returns.max()), (20, 0.5, 0.5, 0.5)]
    plot_learning_curve(tmp_path / "curve.png", np.zeros((0, 2)), evaluations, "t")
    assert len(drawn) == 1


def test_what_is_not_finite_is_left_out(tmp_path, drawn):
    train = np.array([[10.0, np.nan], [20.0, np.inf], [30.0, 5.0]])
    evaluations = [(10, np.nan, 0.0, 1.0), (40, 2.0, 1.0, 3.0)]
    plot_learning_curve(tmp_path / "curve.png", train, evaluations, "t", goal=np.nan)
    assert drawn[0].dataLim.bounds == (30.0, 1.0, 10.0, 4.0)  # x, y, width, height


def test_a_run_without_an_episode_says_so(tmp_path, drawn):
    plot_learning_curve(tmp_path / "curve.png", np.zeros((0, 2)), [], "t", goal=475.0)
    (axes,) = drawn
    assert [each.get_text() for each in axes.texts] == ["no episode ended"]
    assert axes.get_legend() is None


def test_many_evaluations_are_drawn_as_a_band(tmp_path, drawn):
    many = [(steps, 1.0, 0.0, 2.0) for steps in range(100)]
    plot_learning_curve(tmp_path / "curve.png", np.zeros((0, 2)), many, "t")
    assert lines(drawn[0]) == 1 and len(drawn[0].collections) == 1


def test_a_million_episodes_become_a_few_thousand_of_the_whole_run():
    curve = np.stack([np.arange(1e6) * 200, np.arange(1e6)], axis=1)
    kept = thinned(curve)
    assert len(kept) == 128 * 64
    assert kept[0, 0] == 0.0 and kept[-1, 0] == curve[-1, 0]
    assert (np.diff(kept[:, 0]) > 0).all()
    assert np.median(kept[:, 1]) == pytest.approx(5e5, rel=0.01)


@pytest.mark.parametrize("episodes", [0, 1, 100])
def test_few_episodes_are_all_kept(episodes):
    curve = np.stack([np.arange(episodes), np.arange(episodes)], axis=1).astype(float)
    np.testing.assert_array_equal(thinned(curve), curve)


def test_bins_have_equal_widths_and_enough_episodes():
    parts = binned(RISING)
    assert len(parts) == 60 and {len(part) for part in parts} == {33, 34}
    np.testing.assert_array_equal(np.concatenate(parts), RISING)


def test_episodes_that_are_told_together_fall_into_one_bin():
    columns = np.repeat(np.arange(1, 11) * 1000.0, 32)
    parts = binned(np.stack([columns, columns], axis=1))
    assert [set(part[:, 0]) for part in parts] == [{1000.0 * k} for k in range(1, 11)]


def test_a_bin_with_too_few_episodes_goes_on_into_the_next():
    parts = binned(np.stack([np.arange(100) * 100.0, np.zeros(100)], axis=1))
    assert min(map(len, parts)) >= 8 and len(parts) > 5
    assert binned(np.zeros((0, 2))) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (500, "500"), (1500, "1.5k"), (2e6, "2M"), (-3000, "-3k")]
)
def test_env_steps_are_told_in_thousands_and_millions(value, text):
    assert thousands(value) == text
