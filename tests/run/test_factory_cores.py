"""Whether the learner's updates will take several cores."""

import pytest

from distdqn.config import from_values
from distdqn.run.factory import Factory
from distdqn.types import ObservationSpec

PICTURES = ObservationSpec((84, 84), "uint8", scale=1 / 255, stack=4)
NUMBERS = ObservationSpec((4,), "float32")


def takes_several(observation, make_network=None, **values):
    values = {name.replace("__", "."): value for name, value in values.items()}
    factory = Factory(from_values(values), observation, 2, 0, None, None, make_network)
    return factory.updates_take_several_cores


@pytest.mark.parametrize(
    ("observation", "values", "expected"),
    [
        (PICTURES, {}, True),
        (NUMBERS, {}, False),
        (PICTURES, {"network__torso": "mlp"}, False),
        (PICTURES, {"learner__num_threads": 1}, False),
        (NUMBERS, {"learner__num_threads": 2}, True),
    ],
)
def test_only_large_convolutions_take_several_cores_unless_told_otherwise(
    observation, values, expected
):
    assert takes_several(observation, **values) is expected


def test_a_users_network_is_taken_for_one_of_a_single_core():
    assert not takes_several(PICTURES, make_network=lambda space, num_actions: None)
