"""distdqn beside Stable-Baselines3's DQN on Breakout: speed, and learning, at equal work.

    python benchmarks/compare/atari_sb3.py speed --sb3-python PYTHON --repeats 3
    python benchmarks/compare/atari_sb3.py learning --sb3-python PYTHON --seeds 1 2 3

Both sides: 8 envs, Nature network, batch 32, one update per 4 agent steps, uniform replay of
100,000, Adam 1e-4, target network every 1,000 agent steps, epsilon 1 to 0.05 over 30,000,
no-ops, FIRE, lost lives and clipped rewards as Stable-Baselines3's wrappers have them.

`speed` alternates the sides, after a run of ours in each precision that fills the compile
cache, and takes env steps per second of the second half of learning (theirs: of all of it).
Its limit is measured in the same run: all cores spent on nothing but the emulator, the forward
passes of acting and the bare update (one thread, RMSProp). It ends with status 1 below 1.6
times their speed in float32, or 2.3 in bfloat16. `learning` compares the mean raw return of
the last 100 training games, and ends with status 1 where distdqn is below by more than one
standard error of the difference. PYTHON is an interpreter with stable-baselines3, ale-py and
OpenCV. Further flags go to `distdqn train`.
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

from distdqn.bench.result import describe_machine
from distdqn.machine.cpu import usable_cores

HERE = Path(__file__).parent
ENVS, BATCH, STEPS_PER_UPDATE, MIN_SIZE = 8, 32, 4, 5_000
WANTED = {"float32": 1.6, "bfloat16": 2.3}  # times the other side's env steps per second
OURS = {
    "preset": "atari-nature",
    "replay.capacity": 100_000,
    "replay.min-size-to-sample": MIN_SIZE,
    "workers.envs-per-worker": ENVS,
    "workers.block-transitions": 64,
    "workers.epsilon.value": "1.0:0.05:30000",
    "learner.optimizer": "adam",
    "learner.optimizer-eps": 1e-8,
    "learner.learning-rate": 1e-4,
    "learner.max-grad-norm": 10,
    "learner.target-period": 1_000 // STEPS_PER_UPDATE,
    "env.atari.fire-on-reset": "true",
    "eval.period-env-steps": "none",
    "eval.video-episodes": 0,
    "eval.final-episodes": 10,
}


def run_ours(steps: int, seed: int, precision: str, extra: list[str]) -> dict[str, Any]:
    """One `distdqn train`; its summary, with the speed while it learned."""
    settings = OURS | {"total-env-steps": steps, "seed": seed, "learner.precision": precision}
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "distdqn", "train", "--json", "--runs-dir", runs]
        row = _json_line([*command, *flags, *extra])
        row["env_steps_per_s"] = speed(next(Path(runs).iterdir()))
    return {"who": f"distdqn {precision}", **row}


def run_sb3(python: str, steps: int, seed: int) -> dict[str, Any]:
    """One run of Stable-Baselines3's side."""
    flags = {"steps": steps, "seed": seed, "envs": ENVS, "min-size": MIN_SIZE}
    script = str(HERE / "sb3_dqn_atari.py")
    return _json_line([python, script, *(f"--{name}={value}" for name, value in flags.items())])


def speed(run: Path) -> float:
    """Env steps per second of the second half of learning, 4 for each update.

    By updates, since acting may be ahead of or behind its share by the error band.
    """
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    learning = events.Scalars("charts/gradient_steps_per_s")
    last = learning[-1].step
    half = [e for e in learning if (MIN_SIZE + last) / 2 <= e.step < last]
    times = [e.wall_time for e in half]
    updates = sum(
        e.value * (e.wall_time - before) for e, before in zip(half[1:], times, strict=False)
    )
    return STEPS_PER_UPDATE * updates / (times[-1] - times[0])


def limit(precision: str) -> dict[str, float]:
    """Env steps per second of all cores without replay, transport and waiting."""
    from distdqn.bench import rollout

    acting = rollout.run(rollout.Options(env_ids=("ALE/Breakout-v5",), envs=(ENVS,)), _say)
    rates = {case.name: case.value.median for case in acting.cases}
    env_s, inference_s = (1 / rates[f"{name} alone"] for name in ("env", "inference"))
    learner = [sys.executable, "-m", "distdqn.bench.learner", "--network", "nature", "--json"]
    learner += ["--precision", precision, "--batch-size", str(BATCH), "--threads", "1"]
    cases = {case["name"]: case for case in _json_line(learner)["cases"]}
    update_s = 1.0 / cases["update"]["value"]["median"]
    step_s = env_s + inference_s + update_s / STEPS_PER_UPDATE
    return {
        "env_s": env_s,
        "inference_s": inference_s,
        "update_s": update_s,
        "env_steps_per_s": usable_cores() / step_s,
    }


def compare_speed(options: argparse.Namespace, extra: list[str]) -> tuple[dict[str, Any], bool]:
    sides = {
        "distdqn float32": lambda seed: run_ours(options.steps, seed, "float32", extra),
        "Stable-Baselines3": lambda seed: run_sb3(options.sb3_python, options.steps, seed),
        "distdqn bfloat16": lambda seed: run_ours(options.steps, seed, "bfloat16", extra),
    }
    limits = {precision: limit(precision) for precision in WANTED}
    for precision in WANTED:
        run_ours(options.steps, 0, precision, extra)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for seed in range(1, options.repeats + 1):
        for name, run in sides.items():
            rows[name].append(run(seed))
            print(f"{name}: {rows[name][-1]['env_steps_per_s']:.1f} env steps/s", flush=True)
    medians = {
        name: statistics.median(row["env_steps_per_s"] for row in rows[name]) for name in rows
    }
    passed = True
    for precision, bound in limits.items():
        reached = medians[f"distdqn {precision}"]
        ratio = reached / medians["Stable-Baselines3"]
        passed &= ratio >= WANTED[precision]
        print(
            f"{precision}: {reached:.1f} env steps/s, {ratio:.2f} times Stable-Baselines3's "
            f"(wanted {WANTED[precision]}), {reached / bound['env_steps_per_s']:.0%} of the limit "
            f"of {bound['env_steps_per_s']:.1f}"
        )
    return {"rows": rows, "medians": medians, "limits": limits}, passed


def compare_learning(options: argparse.Namespace, extra: list[str]) -> tuple[dict[str, Any], bool]:
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in options.seeds:
        for rows, row in (
            (ours, run_ours(options.steps, seed, options.precision, extra)),
            (theirs, run_sb3(options.sb3_python, options.steps, seed)),
        ):
            rows.append(row)
            print(
                f"{row['who']} seed {seed}: {row['train_return_mean']:.2f} over the last 100 "
                f"games, {row['gradient_steps']} updates, {row['env_steps_per_s']:.1f} steps/s",
                flush=True,
            )
    returns = [[row["train_return_mean"] for row in rows] for rows in (ours, theirs)]
    difference = statistics.mean(returns[0]) - statistics.mean(returns[1])
    error = (sum(statistics.variance(side) for side in returns) / len(options.seeds)) ** 0.5
    print(f"difference {difference:.2f}, standard error {error:.2f}")
    result = {"ours": ours, "theirs": theirs, "difference": difference, "standard_error": error}
    return result, difference >= -error


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _json_line(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    faster = commands.add_parser("speed", help="env steps per second")
    faster.set_defaults(compare=compare_speed)
    faster.add_argument("--repeats", type=int, default=3)
    faster.add_argument("--steps", type=int, default=15_000)
    better = commands.add_parser("learning", help="return at equal updates")
    better.set_defaults(compare=compare_learning)
    better.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    better.add_argument("--steps", type=int, default=100_000)
    better.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    for command in (faster, better):
        command.add_argument("--sb3-python", required=True, help="interpreter of the other side")
        command.add_argument("--json", type=Path)
    options, extra = parser.parse_known_args()
    result, passed = options.compare(options, extra)
    if options.json is not None:
        document = {"machine": describe_machine(), **result}
        options.json.write_text(json.dumps(document, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
