"""YAML text of configurations, with the lines of what is refused.

PyYAML takes the last of two equal keys without a word; here they are refused, at every
depth. Imports yaml when it is first used.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from distdqn.config.keys import Entries, given_twice, no_mapping, read_leaves
from distdqn.config.values import Schedule, is_section
from distdqn.errors import ConfigError

_SHOWN = 40  # characters of what is no mapping


def read_yaml(text: str, kind: type, source: str) -> dict[str, Any]:
    """The values in YAML text by dotted key; see `read_yaml_lines`."""
    return {key: value for key, (value, _) in read_yaml_lines(text, kind, source).items()}


def read_yaml_lines(text: str, kind: type, source: str) -> dict[str, tuple[Any, str]]:
    """The values in YAML text by dotted key, each with its place ("line 3").

    kind: of configuration.  source: of the text, begins the errors.
    Raises ConfigError, one line with the number of the line in the text.
    """
    import yaml

    loader = None
    try:
        loader = _loader_class()(text)
        loader.source = source
        node = loader.get_single_node()
        if node is None:
            return {}
        nodes = read_leaves(node, kind, loader.entries, source)
        return {
            key: (loader.construct_object(value, deep=True), _line(value))
            for key, value in nodes.items()
        }
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}{_yaml_problem(error)}") from None
    finally:
        if loader is not None:
            loader.dispose()


def is_empty(text: str) -> bool:
    """Whether there is nothing but comments."""
    lines = (line.strip() for line in text.splitlines())
    return not any(line and not line.startswith("#") for line in lines)


def to_yaml(config: Any) -> str:
    """YAML text with every field, which reads back to an equal configuration."""
    import yaml

    return yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True)


def annotated_yaml(config: Any, origins: Mapping[str, str]) -> str:
    """The same, with a comment behind every value: where it comes from.

    origins: by dotted key, of all that is no default.
    """
    return "\n".join(_annotated(config, "", origins, config)) + "\n"


def as_plain(value: Any) -> Any:
    """A configuration, or a value of one, as JSON and YAML have it."""
    if isinstance(value, Schedule):
        constant = value == Schedule.constant(value.start)
        given = {k: v for k, v in dataclasses.asdict(value).items() if v is not None}
        return value.start if constant else given
    if dataclasses.is_dataclass(value):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _annotated(section: Any, prefix: str, origins: Mapping[str, str], config: Any) -> Iterator[str]:
    indent = "  " * prefix.count(".")
    for name, value in vars(section).items():
        if is_section(type(value)):
            yield f"{indent}{name}:"
            yield from _annotated(value, f"{prefix}{name}.", origins, config)
            continue
        comment = " ".join(origins.get(prefix + name, "default").split())
        if isinstance(value, Schedule) and value.fraction is not None:
            comment += f", {value.over(config.total_env_steps).env_steps:,} env steps"
        yield f"{indent}{name}: {_one_line(as_plain(value))}  # {comment}"


def _one_line(value: Any) -> str:
    import yaml

    text = yaml.safe_dump(
        value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False
    )
    text = text.removesuffix("\n").removesuffix("\n...")
    return json.dumps(value) if "\n" in text else text


def _yaml_problem(error: Any) -> str:
    """Where and why a text is no YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f", line {mark.line + 1}"
    problem = " ".join((getattr(error, "problem", None) or str(error)).split())
    if mark is not None and mark.buffer and mark.buffer[mark.pointer : mark.pointer + 1] == "\t":
        problem = "a tab; indent with spaces"
    return f"{line}: not YAML: {problem}"


@functools.cache
def _loader_class() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads plain values; two equal keys in a mapping are refused."""

        source: str

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            self._require_different_keys(node)
            return super().construct_mapping(node, deep)

        def entries(self, node: Any, key: str) -> Entries:
            """What a mapping has, as nodes; see `read_leaves`."""
            if key and node.tag.endswith(":null"):
                return
            if not isinstance(node, yaml.MappingNode):
                shown = repr(self.construct_object(node, deep=True))
                shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
                raise no_mapping(key, shown, self.source, _line(node))
            self._require_different_keys(node)
            self.flatten_mapping(node)  # `<<`, whose keys come first and may be replaced
            there = {self._name(name): (name, value) for name, value in node.value}
            for name, (name_node, value) in there.items():
                yield name, value, _line(name_node)

        def _name(self, node: Any) -> str:
            is_scalar = isinstance(node, yaml.ScalarNode)
            return node.value if is_scalar else repr(self.construct_object(node, deep=True))

        def _require_different_keys(self, node: Any) -> None:
            lines: dict[tuple[str, str], str] = {}
            for name, _ in node.value:
                if not isinstance(name, yaml.ScalarNode) or name.tag.endswith(":merge"):
                    continue
                if first := lines.get((name.tag, name.value)):
                    raise given_twice(name.value, self.source, _line(name), first)
                lines[name.tag, name.value] = _line(name)

    return Loader


def _line(node: Any) -> str:
    return f"line {node.start_mark.line + 1}"
