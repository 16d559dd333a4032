"""MinAtar's learning curves: mean training return at chosen frames, and the time they took.

    python benchmarks/minatar_curves.py --game Breakout --frames 1000000 --seeds 1 2 3
    python benchmarks/minatar_curves.py --game SpaceInvaders --frames 500000 --seeds 1 2 3

Each seed is one `distdqn train --preset minatar`; the return at a number of frames is the
mean of the last 100 training episodes until then (epsilon 0.1 from 100,000 frames on, sticky
actions 0.1, six actions), as in figure 2 of Young and Tian 2019 (arXiv:1903.03176), which
has 8.3 at 500,000 and 9.2 at a million frames of Breakout, 28.2 at 500,000 of Space Invaders.
Further flags go to `distdqn train`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LAST = 100  # episodes


def run(game: str, frames: int, seed: int, extra: list[str]) -> dict[str, Any]:
    """One run: its seconds per 500,000 frames, and the returns at every 250,000."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "distdqn", "train", "--preset", "minatar"]
        command += ["--env.id", f"MinAtar/{game}-v0", "--total-env-steps", str(frames)]
        command += ["--seed", str(seed), "--eval.period-env-steps", "none", "--json"]
        command += ["--eval.final-episodes", "10", "--eval.video-episodes", "0"]
        done = subprocess.run(
            [*command, "--runs-dir", runs, *extra], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        episodes = _episodes(next(Path(runs).glob("*/metrics.jsonl")))
    summary = json.loads(done.stdout)
    marks = [*range(250_000, frames, 250_000), frames]
    return {
        "seed": seed,
        "returns": {at: return_at(episodes, at) for at in marks},
        "seconds_per_500000": summary["wall_s"] * 500_000 / frames,
        "gradient_steps": summary["gradient_steps"],
    }


def return_at(episodes: list[tuple[int, float]], frames: int) -> float:
    """Mean return of the last 100 of the (frames, return) until `frames`."""
    until = [episode_return for at, episode_return in episodes if at <= frames]
    return statistics.mean(until[-LAST:])


def _episodes(path: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    tag = "charts/episodic_return"
    return [(row["global_step"], row[tag]) for row in rows if tag in row]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--game", default="Breakout")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", type=Path)
    options, extra = parser.parse_known_args()
    rows = []
    for seed in options.seeds:
        rows.append(run(options.game, options.frames, seed, extra))
        returns = ", ".join(f"{value:.2f} at {at:,}" for at, value in rows[-1]["returns"].items())
        print(f"seed {seed}: {returns}; {rows[-1]['seconds_per_500000']:.0f} s per 500,000")
    for at in rows[0]["returns"]:
        values = [row["returns"][at] for row in rows]
        print(f"mean at {at:,} frames: {statistics.mean(values):.2f}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
