"""CleanRL's `dqn.py` or `dqn_jax.py`, unchanged, from a checkout.

The script runs as its own `__main__`. Its lines pass through a recorder, and its variables
are read when it has ended: updates are those its optimizer counted.
"""

from __future__ import annotations

import re
import runpy
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cartpole_task import LearningClock, arguments, report

_EPISODE = re.compile(r"global_step=(\d+), episodic_return=\[?([\d.]+)")
# Its first line of speed comes at step 10,100, before the tenth update; they began at 10,010.
_FIRST_LINE_UPDATES = 9


class Recorder:
    """Stands in for the script's `print`."""

    def __init__(self) -> None:
        self.clock = LearningClock()
        self.returns: list[float] = []

    def __call__(self, *words: Any) -> None:
        line = " ".join(map(str, words))
        if line.startswith("SPS"):
            self.clock.learned(_FIRST_LINE_UPDATES)
        elif found := _EPISODE.match(line):
            self.returns.append(float(found[2]))
        print(line)


def torch_policy(variables: dict[str, Any]) -> tuple[Any, int]:
    """Greedy actions, and the updates made."""
    import torch

    network, optimizer = variables["q_network"], variables["optimizer"]
    updates = int(next(iter(optimizer.state.values()))["step"])

    @torch.no_grad()
    def act(obs: Any) -> Any:
        return network(torch.as_tensor(obs, dtype=torch.float32)).argmax(dim=1).numpy()

    return act, updates


def jax_policy(variables: dict[str, Any]) -> tuple[Any, int]:
    """Greedy actions, and the updates made."""
    network, state = variables["q_network"], variables["q_state"]
    return lambda obs: network.apply(state.params, obs).argmax(axis=-1), int(state.step)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--checkout", type=Path, required=True, help="of CleanRL")
    parser.add_argument("--script", choices=("dqn.py", "dqn_jax.py"), default="dqn.py")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    recorder = Recorder()
    flags = ["--seed", str(options.seed), "--total-timesteps", str(options.steps)]
    jax = options.script == "dqn_jax.py"
    sys.argv = [options.script, *flags, *([] if jax else ["--no-cuda"])]
    sys.path.insert(0, str(options.checkout))
    script = options.checkout / "cleanrl" / options.script
    variables = runpy.run_path(str(script), {"print": recorder}, "__main__")
    act, updates = (jax_policy if jax else torch_policy)(variables)
    recorder.clock.stop(updates)
    packages = [
        "gymnasium",
        "numpy",
        "torch",
        "stable_baselines3",
        *(["jax", "flax"] if jax else []),
    ]
    report(
        act,
        options.seed,
        recorder.clock,
        recorder.returns,
        env_steps=variables["global_step"] + 1,
        gradient_steps=updates,
        versions={name: version(name) for name in packages},
    )


if __name__ == "__main__":
    main()
