"""Prints the weights of the eight lockstep configurations as JSON, by name.

Runs in a process of its own, with the arithmetic that any x86-64 processor has (see
`PORTABLE`), so that a record made on one machine holds on another.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

RECORD = Path(__file__).with_suffix(".json")
CONFIGURATIONS = list(itertools.product([1, 4], [1, 3], ["uniform", "prioritized"]))

# No vector instructions beyond those that every x86-64 processor has: sums keep their order.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "NUMBA_CPU_NAME": "generic",
}


def arithmetic() -> str:
    """What besides the code decides the last bits."""
    import numpy as np
    import torch

    vendor = "unknown"
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("vendor_id"):
                vendor = line.split()[-1]
                break
    versions = f"torch {torch.__version__.partition('+')[0]} numpy {np.__version__}"
    return f"{platform.machine()} {vendor} {versions}"


def measured() -> dict[str, str]:
    """`weights_sha256` of each configuration, from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--print"],
        env=os.environ | PORTABLE,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _train_all() -> dict[str, str]:
    import distdqn

    found = {}
    for workers, shards, kind in CONFIGURATIONS:
        with tempfile.TemporaryDirectory() as folder:
            config = distdqn.load_config(
                values={
                    "mode": "lockstep",
                    "env.id": "CartPole-v1",
                    "seed": 1,
                    "run_name": "run",
                    "runs_dir": folder,
                    "total_env_steps": 3_000,
                    "workers.count": workers,
                    "workers.envs_per_worker": 4,
                    "workers.block_transitions": 64,
                    "workers.epsilon.value": "1.0:0.05:50000",
                    "replay.shards": shards,
                    "replay.kind": kind,
                    "replay.capacity": 2_000,
                    "replay.min_size_to_sample": 512,
                    "replay.samples_per_insert": 2.0,
                    "learner.batch_size": 32,
                    "learner.superbatch": 4,
                    "learner.n_step": 3,
                    "learner.double": True,
                    "learner.compile": False,
                    "network.hidden": [32],
                    "eval.period_env_steps": 1_000,
                    "eval.episodes": 2,
                    "eval.final_episodes": 2,
                    "eval.video_episodes": 0,
                }
            )
            summary = distdqn.train(config, display=False)
        found[f"{workers} workers, {shards} shards, {kind}"] = summary.weights_sha256
    return found


if __name__ == "__main__":
    if "--print" in sys.argv:
        print(json.dumps(_train_all()))
    else:  # records anew
        known = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
        known[arithmetic()] = measured()
        RECORD.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
