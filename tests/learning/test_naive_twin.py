"""Lockstep with one worker and one shard is textbook DQN, step by step."""

import fake_envs
import numpy as np
import torch
from naive_dqn import naive_dqn
from torch import nn

import distdqn
from distdqn.config import from_values
from distdqn.files.checkpoint import checkpoints, load_checkpoint
from distdqn.learning.training import Training

SEED, HIDDEN, BATCH, PERIOD, STARTS = 3, 32, 32, 4, 128
DISCOUNT = float(np.float32(0.99))  # the replay stores float32


def lockstep_config(tmp_path, num_updates, precision):
    return from_values(
        {
            "mode": "lockstep",
            "runs_dir": str(tmp_path),
            "run_name": "run",
            "seed": SEED,
            "total_env_steps": STARTS + PERIOD * num_updates,
            "workers.envs_per_worker": 1,
            "workers.block_transitions": PERIOD,
            "workers.epsilon.value": "1.0:0.05:4000",
            "replay.min_size_to_sample": STARTS,
            "replay.samples_per_insert": BATCH / PERIOD,
            "learner.batch_size": BATCH,
            "learner.device": "cpu",
            "learner.precision": precision,
            "learner.learning_rate": 1e-3,
            "learner.target_period": 100,
            "network.hidden": [HIDDEN],
            "checkpoint.period_rounds": 1_000_000,
            "eval.period_env_steps": None,
            "eval.final_episodes": 1,
            "eval.video_episodes": 0,
        }
    )


def run_both(tmp_path, monkeypatch, num_updates, precision):
    """(actions, |TD errors|, parameters) of lockstep and of the twin."""
    actions, td_errors = [], []
    update = Training.update

    def noting_update(self, *arguments):
        result = update(self, *arguments)
        td_errors.append(result.priorities)
        return result

    monkeypatch.setattr(Training, "update", noting_update)
    config = lockstep_config(tmp_path, num_updates, precision)
    distdqn.train(config, make_env=lambda: fake_envs.NotingActions(actions), display=False)
    (path,) = checkpoints(tmp_path / "run")
    parameters = list(load_checkpoint(path).online.values())

    torch.manual_seed(SEED)
    network = nn.Sequential(nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
    twins_actions, twins_td_errors = naive_dqn(
        fake_envs.NotingActions([]),
        network.to(getattr(torch, precision)),
        seed=SEED,
        num_updates=num_updates,
        batch_size=BATCH,
        train_period=PERIOD,
        learning_starts=STARTS,
        target_period=100,
        learning_rate=1e-3,
        discount=DISCOUNT,
        epsilon=lambda step: max(1.0 - 0.95 * step / 4000, 0.05),
    )
    twins_parameters = [p.detach().numpy() for p in network.parameters()]
    ours = np.array(actions[: len(twins_actions)]), np.array(td_errors), parameters
    return ours, (twins_actions, np.abs(twins_td_errors), twins_parameters)


def test_in_float64_actions_are_equal_and_parameters_agree_after_2000_updates(
    tmp_path, monkeypatch
):
    ours, twins = run_both(tmp_path, monkeypatch, 2_000, "float64")

    assert len(ours[1]) == len(twins[1]) == 2_000
    np.testing.assert_array_equal(ours[0], twins[0])
    names = sorted(range(4), key=lambda i: ours[2][i].shape)
    assert len(ours[2]) == 4
    for i in names:
        (twin,) = [p for p in twins[2] if p.shape == ours[2][i].shape]
        np.testing.assert_allclose(ours[2][i], twin, rtol=0, atol=1e-9)


def test_in_float32_the_td_errors_of_the_first_200_updates_agree(tmp_path, monkeypatch):
    ours, twins = run_both(tmp_path, monkeypatch, 200, "float32")

    assert ours[1].shape == twins[1].shape == (200, BATCH)
    np.testing.assert_allclose(ours[1], twins[1], rtol=0, atol=1e-5)
