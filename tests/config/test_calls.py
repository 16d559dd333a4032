"""Calls as text: one form, literals alone, the same through YAML, flags and Python."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distdqn.cli.flags import as_words, read_flags
from distdqn.config import Config, from_values, from_yaml, to_yaml
from distdqn.config.calls import call_text, parse_call
from distdqn.errors import ConfigError

TWO = ("TimeAwareObservation", "ClipReward(min_reward=-1, max_reward=1)")


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("TimeLimit", "TimeLimit"),
        (" TimeLimit() ", "TimeLimit"),
        ("TimeLimit( max_episode_steps = 7 )", "TimeLimit(max_episode_steps=7)"),
        (
            "a.b:C.d(x='(', y=[1, (2,)], z={'k': None})",
            "a.b:C.d(x='(', y=[1, (2,)], z={'k': None})",
        ),
        ("F(flatten=false, key=null, on=true)", "F(flatten=False, key=None, on=True)"),
        ({"TimeLimit": {"max_episode_steps": 7}}, "TimeLimit(max_episode_steps=7)"),
        ({"TimeLimit": None}, "TimeLimit"),
        ({"m:f": {"text": "it's"}}, 'm:f(text="it\'s")'),
    ],
)
def test_a_call_has_one_text_however_it_is_written(written, text):
    assert call_text(written) == call_text(text) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(["a", "min_obs", "x1"]), VALUES))
def test_plain_values_come_back_as_they_were(arguments):
    assert parse_call(call_text({"module:make": arguments})) == ("module:make", arguments)
    config = from_values({"env.wrappers": [{"module:make": arguments}]})
    assert from_yaml(to_yaml(config)) == config
    assert config.env.wrapper_calls == [("module:make", arguments)]


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("F(1)", "arguments are given by their names"),
        ("F(**{'a': 1})", "arguments are given by their names"),
        ("F(a=1, a=2)", "repeated: a"),
        ("F(a=b)", "a is b, no number, quoted text"),
        ("F(a=print(1))", r"a is print\(1\), no number"),
        ("F(a=1e999)", "a is inf, no number"),
        ("F(a=1", "never closed"),
        ("F(a=1)(b=2)", "there is more than a call"),
        ("F(a=1).b", "there is more than a call"),
        ("two words", "'two words' is no name"),
        ("a:b:c", "'a:b:c' is no name"),
        ("", "'' is no name"),
        (3, "a mapping has the name as its only key"),
        ({"F": {}, "G": {}}, "a mapping has the name as its only key"),
        ({"F": [1]}, "arguments are a mapping"),
        ({"F": {"x=1, y": 2}}, "arguments are a mapping"),
        ({3: {}}, "3 is no name"),
        ({"F": {"day": datetime.date(2000, 1, 1)}}, "day is datetime.date"),
    ],
)
def test_what_is_no_plain_call_is_refused_with_its_key(written, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        from_values({"env.wrappers": ["TimeLimit", written]})
    line = str(caught.value)
    assert line.startswith(f"env.wrappers is {written!r}, must be NAME or NAME(ARGUMENT=VALUE")
    assert "\n" not in line


def given_by(*words):
    return from_values(read_flags("distdqn train", words, Config)[0]).env.wrappers


def test_flags_take_one_word_for_each_wrapper():
    assert given_by("--env.wrappers", *TWO, "--seed", "3") == TWO
    assert given_by(f"--env.wrappers={TWO[1]}") == TWO[1:]
    assert given_by("--env.wrappers", "[]") == ()
    assert given_by("--env.wrappers", "[{TimeLimit: {max_episode_steps: 9}}]") == (
        "TimeLimit(max_episode_steps=9)",
    )
    assert given_by("--env.wrappers", *as_words(TWO)) == TWO


def test_yaml_takes_names_texts_and_mappings():
    text = f"env: {{wrappers: [{TWO[0]}, {{ClipReward: {{min_reward: -1, max_reward: 1}}}}]}}"
    assert from_yaml(text).env.wrappers == TWO
    assert from_yaml(f"env:\n  wrappers:\n  - {TWO[0]}\n  - {TWO[1]}\n").env.wrappers == TWO
