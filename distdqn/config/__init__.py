"""One tree of frozen dataclasses: every setting of a run.

The names are the same in YAML, as dotted flags and in Python; whatever is refused is
refused on construction with one line. Only the YAML functions import yaml, so that this
package loads without it.

    values       what a value may be: types, ranges, schedules
    suggestions  what is meant by a word that nothing has
    keys         dotted keys, flattened from nested values and built again
    sections     one dataclass for each part of the system
    tree         `Config`, and what must hold between the sections
    schedules    schedules against the length of the run
    yaml_text    YAML, with lines in errors and origins in comments
    files        presets, files and values, and the order in which they are merged
"""

# ruff: noqa: F401 - these names are what the package hands on
from distdqn.config.files import from_values, from_yaml, load_config, to_plain, to_values
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
from distdqn.config.tree import Config, construct_limit
from distdqn.config.values import Schedule
from distdqn.config.yaml_text import to_yaml
