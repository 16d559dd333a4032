"""Lockstep gives the weights that it gave before, to the last bit."""

import json

import pytest
import weights_record


@pytest.mark.timeout(1200)
def test_the_eight_configurations_give_the_recorded_weights():
    known = json.loads(weights_record.RECORD.read_text())
    if weights_record.arithmetic() not in known:
        pytest.skip(
            f"no record for {weights_record.arithmetic()}; where the code is known to be right, "
            "python tests/lockstep/weights_record.py makes one"
        )

    assert weights_record.measured() == known[weights_record.arithmetic()]
