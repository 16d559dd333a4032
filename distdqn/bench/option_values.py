"""What the options of a benchmark may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from distdqn.config.values import coerce, field_types
from distdqn.errors import ConfigError


def with_values(options: Any, values: Mapping[str, Any]) -> Any:
    """A benchmark's options with some changed, from text too.

    Numbers are above 0; or 0, where the default is, or the field's metadata say {"least": 0}.

    Raises:
      ConfigError: naming the flag, its value, and what it must be.
    """
    kind: Any = type(options)
    types, read = field_types(kind), {}
    for field in dataclasses.fields(options):
        if field.name not in values:
            continue
        flag = f"--{field.name.replace('_', '-')}"
        value = coerce(values[field.name], types[field.name], flag)
        zero_too = field.metadata.get("least", field.default) == 0
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) in (int, float) and (number < 0 or (number == 0 and not zero_too)):
                bound = "at least 0" if zero_too else "above 0"
                raise ConfigError(f"{flag} is {number}, must be {bound}")
        read[field.name] = value
    return dataclasses.replace(options, **read)
