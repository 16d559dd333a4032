"""Runs presets over seeds, whole processes timed from outside, start-up included.

    python benchmarks/presets.py --preset cartpole-cleanrl --seeds 1 2 3 --cold

Every row is one `distdqn train`; `--cold` adds a run with an empty compile cache before
the others. `--json FILE` keeps the rows. `compare/cartpole.py` runs other libraries beside ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from distdqn.bench.result import describe_machine

SHOWN = (
    "wall_s",
    "startup_s",
    "env_steps",
    "gradient_steps",
    "samples_per_insert",
    "learner_wait_fraction",
    "peak_pss_bytes",
    "best_eval_return_mean",
    "eval_return_mean",
    "shard_items",
)


def run_ours(preset: str, seed: int, cache: str | None, extra: list[str]) -> dict[str, Any]:
    """One `distdqn train`; its summary with `process_wall_s` measured from outside."""
    environment = dict(os.environ)
    if cache is not None:
        environment["DISTDQN_CACHE_DIR"] = cache
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "distdqn", "train", "--preset", preset, "--json"]
        command += ["--seed", str(seed), "--runs-dir", runs, *extra]
        began = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        wall = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return {"who": "distdqn", "process_wall_s": wall, "seed": seed, **json.loads(done.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cartpole-cleanrl")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--cold", action="store_true", help="first a run with an empty cache")
    parser.add_argument("--json", type=Path)
    arguments, extra = parser.parse_known_args()
    rows = []
    if arguments.cold:
        with tempfile.TemporaryDirectory() as cache:
            rows.append(run_ours(arguments.preset, arguments.seeds[0], cache, extra))
            rows[-1]["who"] = "distdqn, empty cache"
            show(rows[-1])
    for seed in arguments.seeds:
        rows.append(run_ours(arguments.preset, seed, None, extra))
        show(rows[-1])
    summarise(rows)
    if arguments.json is not None:
        result = {"machine": describe_machine(), "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def show(row: dict[str, Any]) -> None:
    figures = "  ".join(f"{name} {_short(row[name])}" for name in SHOWN if name in row)
    print(
        f"{row['who']}  seed {row['seed']}  process {row['process_wall_s']:.1f} s  {figures}",
        flush=True,
    )


def summarise(rows: list[dict[str, Any]]) -> None:
    walls: dict[str, list[float]] = {}
    for row in rows:
        walls.setdefault(row["who"], []).append(row["process_wall_s"])
    for who, seconds in walls.items():
        print(
            f"{who}: median {statistics.median(seconds):.1f} s "
            f"(min {min(seconds):.1f}, max {max(seconds):.1f}, n={len(seconds)})"
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
