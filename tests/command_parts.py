"""The command as a process of its own, as a shell would start it."""

import os
import subprocess
import sys
import time

SMALL = [
    "--env.id=CartPole-v1",
    "--workers.envs-per-worker=4",
    "--workers.block-transitions=64",
    "--workers.construct-timeout-s=600",
    "--workers.env-timeout-s=600",
    "--replay.capacity=4000",
    "--replay.min-size-to-sample=512",
    "--replay.samples-per-insert=2",
    "--learner.batch-size=32",
    "--learner.superbatch=4",
    "--learner.compile=false",
    "--learner.snapshot-period-s=1",
    "--eval.final-episodes=2",
    "--eval.video-episodes=0",
    "--run-name=run",
]


def run(*words: str, code: str = "from distdqn.cli.main import main; sys.exit(main())"):
    """A process of its own, and what it answered."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}", *words],
        capture_output=True,
        text=True,
        timeout=300,
    )


def start(tmp_path, *words, stderr=subprocess.PIPE, **environment):
    """`distdqn train`, with output in pipes; Ray's authentication as `environment` says."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    clean.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-m", "distdqn", "train", *SMALL, f"--runs-dir={tmp_path}", *words],
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def wait_until_training(tmp_path, process):
    deadline = time.monotonic() + 300
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and "losses/td_loss" in metrics.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.2)
