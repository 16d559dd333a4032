"""What a learner tells of itself, whoever asks."""

from __future__ import annotations

import os
from typing import Any

from distdqn.learning.learner import Learner
from distdqn.telemetry.reports import LearnerReport


def learner_report(learner: Learner, **others: Any) -> LearnerReport:
    """Of a learner in this process; others: the fields that it does not know."""
    scalars = learner.scalars()
    return LearnerReport(
        gradient_steps=learner.gradient_steps,
        td_loss=scalars["td_loss"],
        q_values=scalars["q_values"],
        grad_norm=scalars["grad_norm"],
        q_abs_max=learner.q_abs_max,
        compiled=learner.compiled,
        device=learner.device.type,
        pid=os.getpid(),
        **others,
    )
