"""`distdqn train`: one configuration from defaults, preset, file and flags; then a run.

Every configuration key is a flag. All sources are merged before anything is checked, so
a flag may complete a file that could not stand alone.
"""

import dataclasses
from collections.abc import Sequence

from distdqn.cli.flags import make_options, print_help, read_flags
from distdqn.cli.output import OutputFlags, json_only, listing
from distdqn.config import Config, load_config
from distdqn.config.files import preset_names, read_preset

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
    list_presets: bool = False
    """Print the presets and end."""


def run(arguments: Sequence[str]) -> int:
    """Trains, or answers --help or --list-presets; returns the exit status."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    own, output, values = read_flags(_PROG, words, Options, OutputFlags, Config)
    options = make_options(_PROG, Options, own)
    if options.list_presets:
        print(_presets())
        return 0
    config = load_config(options.config, options.preset, values)
    if len(words) < len(arguments):
        print_help(_PROG, _ABOUT, options, OutputFlags(), config)
        return 0
    with json_only("json" in output) as print_json:
        from distdqn.api import train

        summary = train(config, preset=options.preset)
        print_json(summary.to_json())
    return summary.exit_status


def _presets() -> str:
    """The presets by name, each with the first comment of its file."""
    first_lines = {name: read_preset(name).partition("\n")[0] for name in preset_names()}
    return listing({name: line.removeprefix("# ") for name, line in first_lines.items()})
