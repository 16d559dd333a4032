"""`distdqn bench NAME`: throughput, beside its limit on this machine.

Each benchmark is a module with `Options`, whose fields become flags, and
`run(options, say)`; one with `TAKES_CONFIG` is also given a configuration, read from the
same flags as `distdqn train` has. It measures and judges nothing: the exit status is 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distdqn.bench.option_flags import add_option_flags, option_values
from distdqn.cli.flags import FlagParser, UsageError, add_config_flags, config_values
from distdqn.cli.output import json_only
from distdqn.config import load_config, nearest
from distdqn.errors import ConfigError, DistDQNError
from distdqn.files.named_folder import make_folder
from distdqn.plain_json import to_json

if TYPE_CHECKING:
    from distdqn.bench.result import Result
    from distdqn.config import Config

BENCHMARKS = {
    "replay": "add, sample and update priorities; limit: memcpy of the same bytes",
    "learner": "updates, bare and fed; limit: the bare compiled update",
    "broadcast": "publication to last worker acting; limit: ray.put and transfer",
    "rollout": "env, inference and both; limit: env stepping alone",
    "pipeline": "the whole, and what limits it; limit: its slowest part alone, or all cores",
    "scaling": "1 to N workers and 1 to M shards; limits as of pipeline",
}


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
    takes_config = getattr(module, "TAKES_CONFIG", False)
    options = _parser(name, module, takes_config).read(words)
    if options.help:
        _parser(name, module, False).print_help()
        if takes_config:
            print(
                f"\nand --preset (default: {module.DEFAULT_PRESET}), --config and every key, "
                "as `distdqn train --help` lists them"
            )
        return 0
    wanted, more = _wanted(name, module, options), []
    if takes_config:
        more = [_config(module, options)]
    runs_dir = more[0].runs_dir if more else options.runs_dir
    old = None if options.compare is None else _read(Path(options.compare), name)
    with json_only(options.json) as print_json, _folder(runs_dir, name) as folder:
        result = module.run(wanted, _say, *more)
        _finish(folder, result, old, print_json)
    return 0


def _config(module: Any, options: Any) -> Config:
    """As `distdqn train` reads it; without --preset and --config the benchmark's own preset."""
    preset = options.preset
    if preset is None and options.config is None:
        preset = module.DEFAULT_PRESET
    return load_config(options.config, preset, config_values(options))


def _finish(folder: Path, result: Result, old: Result | None, print_json: Any) -> None:
    """Writes the files, shows the tables, prints the JSON."""
    from distdqn.bench.plot import write_png
    from distdqn.bench.ratios import compare
    from distdqn.bench.table import show

    comparison = None if old is None else compare(old, result)
    document = result.to_json()
    if comparison is not None:
        document["comparison"] = dataclasses.asdict(comparison)
    (folder / "result.json").write_text(to_json(document) + "\n")
    write_png(folder / "plot.png", result)
    show(result, comparison)
    _say(f"see {folder / 'plot.png'}")
    print_json(document)


def _parser(name: str, module: Any, takes_config: bool) -> FlagParser:
    parser = FlagParser(
        f"distdqn bench {name}",
        description=(module.__doc__ or "").strip().partition("\n")[0],
        add_help=False,
    )
    add = parser.add_argument
    add("-h", "--help", action="store_true", help="this help")
    add("--quick", action="store_true", help="fewer, shorter measurements")
    add("--json", action="store_true", help="print JSON on stdout, nothing else")
    add("--compare", metavar="OLD.json", help="ratios to an earlier result (file or folder)")
    add("--debug", action="store_true", help="tracebacks instead of one line")
    if takes_config:  # --runs-dir is among its keys
        add("--preset")
        add("--config")
        add_config_flags(parser)
    else:
        meaning = "folder in which the results get one of their own (default: runs)"
        add("--runs-dir", default="runs", metavar="DIR", help=meaning)
    add_option_flags(parser, module.Options())
    return parser


def _wanted(name: str, module: Any, options: Any) -> Any:
    """The benchmark's options: its defaults or its quick ones, and what the flags said."""
    base = module.Options.quick() if options.quick else module.Options()
    try:
        return dataclasses.replace(base, **option_values(module.Options, options))
    except ConfigError:
        raise
    except ValueError as error:
        raise UsageError(f"distdqn bench {name}: {error}") from error


def _read(path: Path, name: str) -> Result:
    """An earlier result of the same benchmark, from its file or its folder."""
    from distdqn.bench.result import Result

    path = path / "result.json" if path.is_dir() else path
    try:
        result = Result.from_json(json.loads(path.read_text()))
    except OSError as error:
        raise DistDQNError(f"--compare {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no text
        raise DistDQNError(
            f"--compare {path} is no JSON ({error}); "
            "give a file that `distdqn bench NAME --json` has written"
        ) from error
    except DistDQNError as error:
        raise DistDQNError(f"--compare {path} is {error}") from error
    if result.benchmark != name:
        raise UsageError(
            f"distdqn bench {name}: --compare {path} is a result of {result.benchmark!r}; "
            f"give one of {name!r}"
        )
    return result


@contextlib.contextmanager
def _folder(runs_dir: str, name: str) -> Iterator[Path]:
    """Made before anything is measured, gone again where nothing came of it."""
    folder = make_folder(runs_dir, f"bench-{name}")
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: the results
            folder.rmdir()


def _unknown(word: str) -> UsageError:
    if word.startswith("-"):
        return UsageError(f"distdqn bench: name a benchmark before {word}: {', '.join(BENCHMARKS)}")
    alike = nearest(word, BENCHMARKS)
    hint = f"did you mean {alike}?" if alike else "the benchmarks are " + ", ".join(BENCHMARKS)
    return UsageError(f"distdqn bench: unknown benchmark {word!r}; {hint}")


def _help() -> str:
    width = max(map(len, BENCHMARKS))
    lines = "\n".join(f"  {name:{width}}  {meaning}" for name, meaning in BENCHMARKS.items())
    return f"""usage: distdqn bench NAME [--quick] [--json] [--compare OLD.json] ...

Measures throughput, each figure beside its limit on this machine.

benchmarks:
{lines}

`distdqn bench NAME --help` for a benchmark's own flags."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
