"""Writes the tables of the documentation that come from the code.

    python docs/tables.py    # or `make docs`

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; a test asks that each is current.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distdqn.config import Config, load_config
from distdqn.config.files import preset_names, read_preset
from distdqn.config.values import Schedule, field_types, is_section
from distdqn.telemetry.status import EvaluationFigures, RunStatus, tags

_HERE = Path(__file__).parent
_BETWEEN = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def presets() -> Iterator[tuple[str, ...]]:
    yield "preset", "environment", "env steps", "workers x envs", "replay", "what it is"
    for name in preset_names():
        config = load_config(preset=name)
        workers, replay = config.workers, config.replay
        yield (
            f"`{name}`",
            config.env.id,
            f"{config.total_env_steps:,}",
            f"{workers.count} x {workers.envs_per_worker}",
            f"{replay.kind} {replay.capacity:,}, {replay.samples_per_insert:g} samples per insert",
            _title(read_preset(name)),
        )


def _title(text: str) -> str:
    """A preset's first line, without what other columns say."""
    return text.partition("\n")[0].removeprefix("# ")


def keys() -> Iterator[tuple[str, ...]]:
    yield "key", "default", "meaning"
    yield from _keys(Config, "")


def _keys(kind: Any, prefix: str) -> Iterator[tuple[str, ...]]:
    """Plain fields first, then the sections, as a reader looks for them."""
    types, meanings, default = field_types(kind), _meanings(kind), kind()
    for name in sorted(types, key=lambda name: is_section(types[name])):
        if is_section(types[name]):
            yield from _keys(types[name], f"{prefix}{name}.")
        else:
            yield f"`{prefix}{name}`", _shown(getattr(default, name)), meanings[name]


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "[]"
    if isinstance(value, dict):
        return str(value)
    return str(value) if isinstance(value, (Schedule, str)) else f"{value:,}"


def _meanings(kind: type) -> dict[str, str]:
    """The text under each field of a dataclass."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(cls, ast.ClassDef)
    found = {}
    for field, after in zip(cls.body, [*cls.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            words = text.value if isinstance(text, ast.Constant) else ""
            found[field.target.id] = " ".join(str(words).split())
    return found


def metrics() -> Iterator[tuple[str, ...]]:
    yield "name", "meaning"
    for kind in (RunStatus, EvaluationFigures):
        meanings = {field.name: field.metadata.get("meaning") for field in dataclasses.fields(kind)}
        for tag, name in sorted(tags(kind).items()):
            yield f"`{tag}`", meanings[name] or name.replace("_", " ")


_TABLES: dict[str, Callable[[], Iterator[tuple[str, ...]]]] = {
    "presets": presets,
    "keys": keys,
    "metrics": metrics,
}


def current(text: str) -> str:
    """A page's text with its tables as the code has them."""
    return _BETWEEN.sub(lambda found: found[1] + _markdown(_TABLES[found[2]]()) + found[3], text)


def _markdown(rows: Iterator[tuple[str, ...]]) -> str:
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    for page in sorted(_HERE.glob("*.md")):
        text = page.read_text()
        if (new := current(text)) != text:
            page.write_text(new)
            print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
