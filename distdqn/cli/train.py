"""`distdqn train`: one configuration from defaults, preset, file and flags; then a run.

Every configuration key is a flag. All sources are merged before anything is checked, so
a flag may complete a file that could not stand alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from distdqn.cli.flags import FlagParser, add_config_flags, config_values
from distdqn.cli.output import json_only
from distdqn.config import load_config, preset_names, read_preset


def run(arguments: Sequence[str]) -> int:
    """Trains, or answers --help or --list-presets; returns the exit status."""
    options = _parser().read(arguments)
    if options.list_presets:
        print(_presets())
        return 0
    config = load_config(options.config, options.preset, config_values(options))
    if options.help:
        from distdqn.cli.config_help import print_config_help

        print_config_help(config)
        return 0
    with json_only(options.json) as print_json:
        from distdqn.api import train

        summary = train(config)
        print_json(summary.to_json())
    return summary.exit_status


def _parser() -> FlagParser:
    parser = FlagParser("distdqn train", add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--preset")
    parser.add_argument("--config")
    parser.add_argument("--list-presets", action="store_true")
    parser.add_argument("--json", action="store_true")
    add_config_flags(parser)
    return parser


def _presets() -> str:
    """The presets by name, each with the first comment of its file."""
    names = preset_names()
    width = max(map(len, names), default=0)
    titles = (read_preset(name).partition("\n")[0].removeprefix("# ") for name in names)
    return "\n".join(f"{name:{width}}  {title}" for name, title in zip(names, titles, strict=True))
