"""Made-up benchmark results."""

from __future__ import annotations

from typing import Any

from distdqn.bench.result import Case, Result


def made_up_case(name="sample", value=(10.0, 12.0, 11.0), limit=(20.0, 24.0, 22.0), **fields: Any):
    """A case of three repetitions at half its limit, unless the figures say otherwise."""
    settings = fields.pop("settings", {"size": 1_000, "kind": "uniform"})
    unit = fields.pop("unit", "transitions/s")
    return Case.of(name, settings, unit, value, limit, "memcpy", **fields)


def made_up_result(*cases: Case, **fields: Any) -> Result:
    machine = {"cpu": "Fast", "cores": 2, "torch": "2.13", "load_average": [0.1, 0.2, 0.3]}
    given: dict[str, Any] = {
        "benchmark": "replay",
        "version": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "machine": machine,
        "options": {"sizes": (1_000,), "repeats": 3},
        "notes": ("a note",),
    }
    return Result(cases=cases, **given | fields)
