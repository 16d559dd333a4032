"""One tree of frozen dataclasses: every setting of a run.

The names are the same in YAML, as dotted flags and in Python; whatever is refused is
refused on construction with one line. Only the YAML functions import yaml, so that this
package loads without it.

    values   what a value may be: types, ranges, schedules
    sections one dataclass for each part of the system
    tree     `Config`, and what must hold between the sections
    files    YAML, presets, and the order in which they are merged
"""

# ruff: noqa: F401 - these names are what the package hands on
from distdqn.config.files import from_values, from_yaml, load_config, to_plain, to_values, to_yaml
from distdqn.config.sections import (
    AtariConfig,
    CheckpointConfig,
    EnvConfig,
    EpsilonConfig,
    EvalConfig,
    LearnerConfig,
    NetworkConfig,
    ReplayConfig,
    WorkersConfig,
)
from distdqn.config.tree import Config
from distdqn.config.values import Schedule
