"""`distdqn train`: one configuration from defaults, preset, file and flags; then a run.

Every configuration key is a flag. All sources are merged before anything is checked, so
a flag may complete a file that could not stand alone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from distdqn.cli.flags import flag_name, make_options, print_help, read_flags
from distdqn.cli.output import OutputFlags, json_only, listing, say, told_if_slow
from distdqn.config import Config, to_plain
from distdqn.config.files import build_named, gather, preset_names, read_preset
from distdqn.config.schedules import outlasting
from distdqn.config.yaml_text import annotated_yaml
from distdqn.plain_json import to_json

_PROG = "distdqn train"
_ABOUT = """Trains a deep Q-network: env workers, replay shards and a learner on Ray.

Later sources replace single values of earlier ones: the defaults, then --preset, then \
--config, then flags. A bool is set by --learner.double, --learner.no-double or \
--learner.double true; `none` stands for no value; - and _ are the same in a flag's name."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags besides those of `Config`."""

    preset: str | None = None
    """Preset to start from; --list-presets names them."""
    config: str | None = None
    """YAML file whose values replace the preset's."""
    print_config: bool = False
    """Print what would run, as YAML for --config, each value with where it comes from, and end."""
    dry_run: bool = False
    """Check everything, say what would start and where, and end."""
    list_presets: bool = False
    """Print the presets and end."""


def run(arguments: Sequence[str]) -> int:
    """Trains, or does what one of `Options` asks instead; returns the exit status."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    own, output, given = read_flags(_PROG, words, Options, OutputFlags, Config)
    options = make_options(Options, own)
    if options.list_presets:
        presets = _presets()
        print(to_json(presets, indent=2) if "json" in output else listing(presets))
        return 0
    values, origins = gather(options.config, options.preset, given)
    config = build_named(values, origins)
    if len(words) < len(arguments):
        print_help(_PROG, _ABOUT, options, OutputFlags(), config)
        return 0
    origins |= {key: flag_name(key) for key in given}
    with json_only("json" in output) as print_json:
        if options.print_config or options.dry_run:
            print_json(_look(config, origins, options, "json" in output))
            return 0
        with told_if_slow(f"{_PROG}: loading"):
            from distdqn.api import train

        summary = train(config, preset=options.preset, by_force=True)
        print_json(summary.to_json())
    return summary.exit_status


def _look(
    config: Config, origins: Mapping[str, str], options: Options, wants_json: bool
) -> dict[str, Any]:
    """Prints the configuration, says what would start, or both; raises as the run would."""
    document: dict[str, Any] = {}
    if options.print_config:
        if not wants_json:
            print(annotated_yaml(config, origins), end="")
        document["config"] = {
            key: {"value": value, "origin": origins.get(key, "default")}
            for key, value in to_plain(config).items()
        }
    if options.dry_run:
        with told_if_slow(f"{_PROG}: loading"):
            from distdqn.api import dry_run

        document["plan"] = dry_run(config)
        alone = not (wants_json or options.print_config)  # else stdout is for the other one
        for line in outlasting(config):
            say(line)
        for line in (listing(document["plan"]), "nothing was started (--dry-run)"):
            print(line) if alone else say(line)
    return document


def _presets() -> dict[str, str]:
    """The first comment of each preset's file by its name."""
    first_lines = {name: read_preset(name).partition("\n")[0] for name in preset_names()}
    return {name: line.removeprefix("# ") for name, line in first_lines.items()}
