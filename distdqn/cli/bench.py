"""`distdqn bench NAME`: throughput, beside its limit on this machine.

Each benchmark is a module with `Options`, whose fields become flags, `QUICK`, which are less,
and `run(options, say)`; one with a `DEFAULT_PRESET` is also given a configuration, read from the
same flags as `distdqn train` has. It measures and judges nothing: the exit status is 0.
"""

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distdqn.bench.result import Result, with_values
from distdqn.bench.show import compare, show, write_png
from distdqn.cli.flags import UsageError, make_options, print_help, read_flags
from distdqn.cli.output import OutputFlags, json_only, listing, say
from distdqn.config import Config, load_config
from distdqn.config.suggestions import did_you_mean
from distdqn.errors import DistDQNError
from distdqn.files.folders import results_folder
from distdqn.plain_json import to_json

BENCHMARKS = {
    "replay": "add, sample and update priorities; limit: memcpy of the same bytes, a write a node",
    "learner": "updates, bare and fed; limit: the bare compiled update",
    "broadcast": "publication to last worker acting; limit: ray.put and transfer",
    "rollout": "env, inference and both; limit: env stepping alone",
    "pipeline": "the whole, and what limits it; limit: its slowest part alone, or all cores",
    "scaling": "1 to N workers and 1 to M shards; limits as of pipeline",
}


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of every benchmark."""

    quick: bool = False
    """Fewer, shorter measurements."""
    compare: str | None = None
    """Ratios to an earlier result: OLD.json, or its folder."""


@dataclasses.dataclass(frozen=True)
class FolderFlags:
    """Of a benchmark without a configuration, which has a folder among its keys."""

    runs_dir: str = "runs"
    """Folder in which the results get one of their own."""


@dataclasses.dataclass(frozen=True)
class ConfigFlags:
    """Of a benchmark with a configuration."""

    preset: str | None = None
    """Preset to start from."""
    config: str | None = None
    """YAML file whose values replace the preset's."""


def run(arguments: Sequence[str]) -> int:
    """Measures, writes result.json and plot.png; returns the exit status."""
    words = list(arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] not in BENCHMARKS:
        raise _unknown(words[0])
    name = words.pop(0)
    module = importlib.import_module(f"distdqn.bench.{name}")
    if {"-h", "--help"} & set(words):
        _print_help(name, module)
        return 0
    options, wants_json, wanted, runs_dir, more = _read_flags(name, module, words)
    old = None if options.compare is None else _read(Path(options.compare), name)
    with json_only(wants_json) as print_json, results_folder(runs_dir, f"bench-{name}") as folder:
        result = module.run(wanted, say, *more)
        _finish(folder, result, old, print_json)
    return 0


def _read_flags(
    name: str, module: Any, words: Sequence[str]
) -> tuple[Flags, bool, Any, str, list[Config]]:
    """The flags of every benchmark, --json, its own options, where results go, its configuration.

    Without --preset and --config the configuration starts from the benchmark's own preset.
    """
    prog, preset = f"distdqn bench {name}", getattr(module, "DEFAULT_PRESET", None)
    source_kind: Any = ConfigFlags if preset else FolderFlags
    parts = [Flags, OutputFlags, module.Options, source_kind, *([Config] if preset else [])]
    flags, output, own, place, *values = read_flags(prog, words, *parts)
    options, source = make_options(Flags, flags), make_options(source_kind, place)
    try:
        wanted = with_values(module.QUICK if options.quick else module.Options(), own)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not preset:
        return options, "json" in output, wanted, source.runs_dir, []
    if source.preset is not None or source.config is not None:
        preset = source.preset
    config = load_config(source.config, preset, values[0])
    return options, "json" in output, wanted, config.runs_dir, [config]


def _finish(folder: Path, result: Result, old: Result | None, print_json: Any) -> None:
    """Writes the files, shows the tables, prints the JSON."""
    document = result.to_json()
    comparison = compare(old, result) if old else None
    if comparison:
        document["comparison"] = dataclasses.asdict(comparison)
    (folder / "result.json").write_text(to_json(document, indent=2) + "\n")
    write_png(folder / "plot.png", result)
    show(result, comparison)
    say(f"see {folder / 'plot.png'}")
    print_json(document)


def _print_help(name: str, module: Any) -> None:
    about = (module.__doc__ or "").strip().partition("\n")[0]
    preset = getattr(module, "DEFAULT_PRESET", None)
    besides = [] if preset else [FolderFlags()]
    print_help(f"distdqn bench {name}", about, Flags(), OutputFlags(), *besides, module.Options())
    if preset:
        keys = "--config and every key, as `distdqn train --help` lists them"
        print(f"\nand --preset (default: {preset}), {keys}")


def _read(path: Path, name: str) -> Result:
    """An earlier result of the same benchmark, from its file or its folder."""
    path = path / "result.json" if path.is_dir() else path
    try:
        result = Result.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise DistDQNError(f"--compare {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no text
        hint = "give a file that `distdqn bench NAME --json` has written"
        raise DistDQNError(f"--compare {path} is no JSON ({error}); {hint}") from error
    except DistDQNError as error:
        raise DistDQNError(f"--compare {path} is {error}") from error
    if result.benchmark != name:
        found = f"a result of {result.benchmark!r}; give one of {name!r}"
        raise UsageError(f"--compare {path} is {found}")
    return result


def _unknown(word: str) -> UsageError:
    names = ", ".join(BENCHMARKS)
    if word.startswith("-"):
        return UsageError(f"name a benchmark before {word}: {names}")
    hint = did_you_mean(word, BENCHMARKS, f"the benchmarks are {names}")
    return UsageError(f"unknown benchmark {word!r}; {hint}")


def _help() -> str:
    return f"""usage: distdqn bench NAME [--quick] [--json] [--compare OLD.json] ...

Measures throughput, each figure beside its limit on this machine.

benchmarks:
{listing(BENCHMARKS, "  ")}

`distdqn bench NAME --help` for a benchmark's own flags."""
