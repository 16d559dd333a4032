"""Holds the asynchronous mode against lockstep: same work, same learning?

    python benchmarks/async_vs_lockstep.py --seeds 10 --json FILE

Trains CartPole-v1 in both modes, in turn, seed by seed, by preset cartpole-cleanrl, and
reports, per mode, samples per insert, staleness and `best_eval_return_mean`, and the 95
percent interval of the difference in its mean (async minus lockstep, Student's t with
n - 1 degrees of freedom, which is wider than Welch's). Further flags go to
`distdqn train`. Exit status 1 where the interval reaches -25 or the ratios differ by more
than one percent.

Broken off in the middle of learning the modes differ:

    ... --total-env-steps 150000 --workers.epsilon.value 1.0:0.05:75000

There the asynchronous workers act with weights that are one or two publications old, and
ahead of the learner within the error band, which costs some of the return reached by then.
Smaller messages buy it back: --learner.superbatch 16 --workers.block-transitions 256
--learner.publish-period 25.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETTINGS = ["--preset", "cartpole-cleanrl"]
MODES = ("async", "lockstep")
LOWEST = -25.0
# Quantile 0.975 of Student's t by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
T |= {10: 2.228, 11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110}
T |= {18: 2.101, 19: 2.093}
SHOWN = (
    "best_eval_return_mean",
    "eval_return_mean",
    "samples_per_insert",
    "gradient_steps",
    "staleness_p50",
    "staleness_p95",
    "wall_s",
)


def run(mode: str, seed: int, extra: list[str]) -> dict[str, Any]:
    """The summary of one run."""
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "distdqn", "train", *SETTINGS, "--mode", mode]
        command += ["--seed", str(seed), "--runs-dir", runs, "--json", *extra]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return {"mode": mode, **json.loads(done.stdout)}


def interval(rows: list[dict[str, Any]], name: str) -> tuple[float, float, float]:
    """Mean of async minus lockstep, and the ends of its 95 percent interval."""
    samples = [[row[name] for row in rows if row["mode"] == mode] for mode in MODES]
    difference = statistics.mean(samples[0]) - statistics.mean(samples[1])
    num = len(samples[0])
    error = (sum(statistics.variance(sample) for sample in samples) / num) ** 0.5
    half = T[num - 1] * error
    return difference, difference - half, difference + half


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=10, help="seeds 1 to N, of 2 to 20")
    parser.add_argument("--json", type=Path)
    options, extra = parser.parse_known_args()
    rows = []
    for seed in range(1, options.seeds + 1):
        for mode in MODES if seed % 2 else reversed(MODES):
            rows.append(run(mode, seed, extra))
            shown = ", ".join(f"{name} {rows[-1][name]:.6g}" for name in SHOWN)
            print(f"{mode:8} seed {seed}: {shown}", flush=True)
    difference, low, high = interval(rows, "best_eval_return_mean")
    print(
        f"difference in best_eval_return_mean: {difference:.1f}, 95 percent {low:.1f} to {high:.1f}"
    )
    ratios = [
        statistics.mean(row["samples_per_insert"] for row in rows if row["mode"] == mode)
        for mode in MODES
    ]
    apart = abs(ratios[0] / ratios[1] - 1.0)
    print(f"samples per insert: {ratios[0]:.4f} and {ratios[1]:.4f}, {apart:.3%} apart")
    if options.json is not None:
        machine = {"machine": platform.processor() or platform.machine(), "python": sys.version}
        result = {"difference": difference, "interval": [low, high], "ratios": ratios}
        options.json.write_text(json.dumps(machine | result | {"rows": rows}, indent=1))
    return 0 if low > LOWEST and apart <= 0.01 else 1


if __name__ == "__main__":
    sys.exit(main())
