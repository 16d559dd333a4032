"""Runs one side of the CartPole comparison: ours, or a peer.

A row has `wall_s`, the seconds of the whole process, and `env_steps_per_s` while learning.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cartpole_task import EPSILON_END, EPSILON_FRACTION, STEPS_PER_UPDATE
from comparison import PeerError
from environments import python_of

HERE = Path(__file__).parent
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One of the others.

    environment: name of its virtual environment.  script: beside this file.
    steps: env steps of a measured run.  trial_steps: of the runs that choose its best.
    variants: flags of the ways to run it at the same work, of which its best is taken.
    """

    environment: str
    script: str
    steps: int
    trial_steps: int
    variants: tuple[tuple[str, ...], ...] = ((),)


PEERS = {
    "cleanrl-dqn": Peer("cleanrl", "cleanrl_dqn.py", 500_000, 30_000),
    "cleanrl-dqn-jax": Peer(
        "cleanrl_jax", "cleanrl_dqn.py", 500_000, 30_000, (("--script", "dqn_jax.py"),)
    ),
    "sb3": Peer(
        "sb3", "sb3_dqn.py", 500_000, 30_000, tuple(("--envs", n) for n in ("1", "8", "32"))
    ),
    "rllib": Peer(
        "rllib",
        "rllib_dqn.py",
        50_000,
        16_000,
        (
            ("--runners", "0", "--envs", "1", "--fragment", "10"),
            ("--runners", "0", "--envs", "10", "--fragment", "10"),
            ("--runners", "2", "--envs", "5", "--fragment", "10"),
        ),
    ),
    "torchrl": Peer(
        "torchrl", "torchrl_dqn.py", 60_000, 16_000, ((), ("--envs", "10"), ("--compiled",))
    ),
}


def ours_flags(steps: int) -> list[str]:
    """Of `distdqn train`: the preset of the experiment, cut to `steps`."""
    decay = int(EPSILON_FRACTION * steps)
    flags = ["--preset", "cartpole-cleanrl", "--total-env-steps", str(steps)]
    return [*flags, "--workers.epsilon.value", f"1.0:{EPSILON_END}:{decay}"]


def run_ours(steps: int, seed: int) -> Row:
    """One `distdqn train`, its evaluations included in `wall_s`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distdqn", "train", "--json", "--runs-dir", folder]
        command += [*ours_flags(steps), "--seed", str(seed)]
        done, seconds = _timed(command, Path(folder), dict(os.environ))
    if done.returncode:
        raise SystemExit(f"distdqn train ended with {done.returncode}:\n{done.stderr}")
    return ours_row(json.loads(done.stdout), seconds)


def ours_row(summary: Row, seconds: float) -> Row:
    """The fields of a peer's row, from a run's summary.

    The summary counts updates per second from its first report of env steps to the end of
    training, so that filling the replay counts against us; no time before a peer's first
    update does against it.
    """
    names = ("seed", "env_steps", "gradient_steps", "train_return_mean", "eval_return_mean")
    more = ("eval_episodes", "compiled", "bottleneck", "best_eval_return_mean")
    return {
        "wall_s": seconds,
        "env_steps_per_s": STEPS_PER_UPDATE * summary["gradient_steps_per_s"],
        **{name: summary[name] for name in names + more},
    }


def run_peer(
    peer: Peer, flags: Sequence[str], steps: int, seed: int, threads: int, places: dict[str, Path]
) -> tuple[Row, str]:
    """One run of a peer, and its whole output.

    places: VENVS, the folder of the environments, and CLEANRL, the checkout.
    Raises PeerError where there is no environment, or the run failed.
    """
    python = python_of(places["VENVS"], peer.environment)
    if not python.exists():
        raise PeerError(f"no environment {peer.environment} in {places['VENVS']}: build it first")
    command = [str(python), str(HERE / peer.script), *flags]
    command += ["--steps", str(steps), "--seed", str(seed), "--threads", str(threads)]
    if peer.script == "cleanrl_dqn.py":
        if "CLEANRL" not in places:
            raise PeerError("needs --cleanrl CHECKOUT")
        command += ["--checkout", str(places["CLEANRL"])]
    with tempfile.TemporaryDirectory() as folder:  # CleanRL writes into the current one
        done, seconds = _timed(command, Path(folder), environment(threads))
    shown = " ".join([peer.environment, peer.script, *command[2:]])
    text = f"$ {shown}\n{done.stdout}{done.stderr}\n"
    if done.returncode:
        last = (done.stderr.strip() or "nothing said").splitlines()[-1]
        raise PeerError(f"{shown} ended with {done.returncode}: {last}")
    return peer_row(done.stdout, seconds, seed), text


def peer_row(stdout: str, seconds: float, seed: int) -> Row:
    """The row in the last line of a peer's output; its own greedy episodes cost it no time."""
    row = json.loads(stdout.strip().splitlines()[-1])
    return {"seed": seed, "wall_s": seconds - row["evaluation_s"], **row}


def environment(threads: int) -> dict[str, str]:
    """Variables that hold the numerical libraries to so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    eigen = f"--xla_cpu_multi_thread_eigen={str(threads > 1).lower()}"
    return {**os.environ, **dict.fromkeys(names, str(threads)), "XLA_FLAGS": eigen}


def _timed(
    command: list[str], folder: Path, variables: dict[str, str]
) -> tuple[subprocess.CompletedProcess[str], float]:
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    return done, time.perf_counter() - began
