"""Lockstep gives the weights that it gave before, to the last bit."""

import json
import re
from pathlib import Path

import pytest
import weights_record

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@pytest.mark.timeout(1200)
def test_the_eight_configurations_give_the_recorded_weights():
    known = json.loads(weights_record.RECORD.read_text())
    if weights_record.arithmetic() not in known:
        pytest.skip(
            f"no record for {weights_record.arithmetic()}; where the code is known to be right, "
            "python tests/lockstep/weights_record.py makes one"
        )

    assert weights_record.measured() == known[weights_record.arithmetic()]


def test_the_record_is_of_the_pinned_versions():
    """Else the test above would be skipped on every machine, and nobody would notice."""
    pins = dict(re.findall(r"^(torch|numpy)==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE))
    made_with = f"torch {pins['torch']} numpy {pins['numpy']}"
    assert any(name.endswith(made_with) for name in json.loads(weights_record.RECORD.read_text()))
