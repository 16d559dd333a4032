"""What a comparison with others leaves behind: JSON, a table, a plot, outputs.

One file per comparison holds an entry for each peer, with the machine and the moment of its
own; peers measured later are added to it, those measured again are replaced.
"""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distdqn.bench.result import Figure, describe_machine

FORMAT = 1
_LARGE_BYTES = 65_536  # an output above it is kept compressed

Entry = dict[str, Any]
Draw = Callable[[Any, Mapping[str, Entry]], None]  # on matplotlib's axes


class PeerError(Exception):
    """A peer that cannot be measured; one line."""


def figure(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return dataclasses.asdict(Figure.of(values))


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Of neighbours: repetition by repetition, so that a slow moment meets both sides."""
    return figure([a / b for a, b in zip(numerators, denominators, strict=True)])


def stamped(entry: Entry) -> Entry:
    """The entry with the machine and the moment."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return {"created": now, "machine": describe_machine(), **entry}


def merged(path: Path, name: str, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """The comparison in `path`, if there is one, with these peers added or replaced."""
    peers: dict[str, Entry] = {}
    if path.exists():
        document = json.loads(path.read_text())
        if (document.get("format"), document.get("comparison")) != (FORMAT, name):
            raise SystemExit(
                f"{path} is no comparison {name!r} of format {FORMAT}: give another --out"
            )
        peers = document["peers"]
    return {"format": FORMAT, "comparison": name, "peers": {**peers, **entries}}


def write(
    out: Path,
    name: str,
    entries: Mapping[str, Entry],
    table: Callable[[Mapping[str, Entry]], str],
    draw: Draw,
) -> str:
    """`<name>.json`, `.md` and `.png` in `out`; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    document = merged(path, name, entries)
    text = table(document["peers"])
    path.write_text(json.dumps(document, indent=1) + "\n")
    (out / f"{name}.md").write_text(text)
    _plot(out / f"{name}.png", document["peers"], draw)
    return text


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(of: Mapping[str, float], digits: int = 3) -> str:
    """`median (min to max)`, or the median alone where there is no spread."""
    median, low, high = (short(of[key], digits) for key in ("median", "min", "max"))
    return median if low == high else f"{median} ({low} to {high})"


def short(value: float | None, digits: int = 3) -> str:
    """`digits` significant ones, with thousands separated; "-" for nothing."""
    if value is None:
        return "-"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def machine_lines(entries: Mapping[str, Entry]) -> str:
    """One line for each machine, with the peers measured on it and their versions."""
    lines = []
    for peer, entry in entries.items():
        machine = entry["machine"]
        ours = ", ".join(f"{n} {machine[n]}" for n in ("distdqn", "torch", "ray", "numpy"))
        theirs = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
        lines.append(
            f"- {peer}: {entry['created'][:10]}, {machine['cores']} cores of "
            f"{machine['cpu']}, Python {machine['python']}; ours {ours}; theirs {theirs}\n"
        )
    return "".join(lines)


def keep_output(out: Path, name: str, peer: str, text: str, places: Mapping[str, Path]) -> str:
    """Keeps a peer's whole output, without names of places and of the host; the file's name.

    places: what to write in place of a folder's path.
    """
    folder = out / "output"
    folder.mkdir(parents=True, exist_ok=True)
    content = anonymous(text, places).encode()
    for old in folder.glob(f"{name}-{peer}.txt*"):
        old.unlink()
    path = folder / f"{name}-{peer}.txt"
    if len(content) > _LARGE_BYTES:
        path = path.with_suffix(".txt.gz")
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)
    return f"output/{path.name}"


def anonymous(text: str, places: Mapping[str, Path]) -> str:
    """Longest paths first, so that a folder within another keeps its own name."""
    for name, path in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        text = text.replace(str(path), name)
    return re.sub(rf"\b{re.escape(socket.gethostname())}\b", "HOST", text)


def _plot(path: Path, entries: Mapping[str, Entry], draw: Draw) -> None:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(8, 1.2 + 0.8 * len(entries)), layout="constrained")
    draw(canvas.add_subplot(), entries)
    canvas.savefig(path, dpi=110)
