"""An unknown key leads to the one meant, names of other libraries to ours."""

from __future__ import annotations

import pytest

from distdqn.config import Config, from_values
from distdqn.config.keys import key_types
from distdqn.config.suggestions import TABLE, did_you_mean_key
from distdqn.errors import ConfigError

SB3 = """policy env learning_rate buffer_size learning_starts batch_size tau gamma train_freq
    gradient_steps n_steps optimize_memory_usage target_update_interval exploration_fraction
    exploration_initial_eps exploration_final_eps max_grad_norm tensorboard_log policy_kwargs seed
    device total_timesteps n_timesteps n_envs eval_freq n_eval_episodes save_freq net_arch
    features_extractor_class optimizer_class optimizer_kwargs"""
CLEANRL = """exp_name seed torch_deterministic cuda capture_video save_model env_id total_timesteps
    learning_rate num_envs buffer_size gamma tau target_network_frequency batch_size start_e end_e
    exploration_fraction learning_starts train_frequency"""
RLLIB = """env env_config lr gamma grad_clip train_batch_size train_batch_size_per_learner
    target_network_update_freq num_steps_sampled_before_learning_starts training_intensity
    epsilon adam_epsilon double_q dueling n_step replay_buffer_config alpha beta num_workers
    num_env_runners num_envs_per_env_runner rollout_fragment_length num_gpus num_gpus_per_learner
    num_cpus_per_env_runner fcnet_hiddens hiddens clip_rewards evaluation_interval
    evaluation_duration framework exploration_config lr_schedule prioritized_replay
    td_error_loss_fn custom_model"""


def hint(word: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_values({word: 1})
    return str(caught.value).partition("; ")[2]


def test_every_name_leads_to_a_key_there_is_and_is_none_itself():
    names = [name for _, row, _ in TABLE for name in row.split()]

    assert {key for key, _, _ in TABLE} <= {*key_types(Config), ""}
    assert len(set(names)) == len(names)
    assert not set(names) & set(key_types(Config))


@pytest.mark.parametrize("word", sorted({*SB3.split(), *CLEANRL.split(), *RLLIB.split()}))
def test_the_names_of_other_libraries_are_answered(word):
    if word not in ("seed", "env"):
        assert "did you mean" in hint(word) or "there is nothing to set" in hint(word)


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("lr", "did you mean learner.learning_rate?"),
        ("learner.lr", "did you mean learner.learning_rate?"),
        ("gamma", "did you mean learner.discount?"),
        ("env.name", "did you mean env.id?"),
        ("agent.buffer_size", "did you mean replay.capacity?"),
        ("train_freq", "did you mean replay.samples_per_insert? It is learner.batch_size over"),
        ("target_update_interval", "did you mean learner.target_period? It counts gradient steps"),
        (
            "exploration_fraction",
            "did you mean workers.epsilon.value? A fraction of 0.3 is the",
        ),
        ("exploration_fracton", "did you mean workers.epsilon.value? A fraction"),
        ("eval_freq", "did you mean eval.period_env_steps? It counts env steps over all envs"),
        ("resume", "`distdqn resume RUN` goes on with"),
        ("preset", "a preset is chosen by --preset NAME"),
        ("batch_sizes", "did you mean learner.batch_size?"),
    ],
)
def test_a_name_is_answered_by_its_meaning(word, answer):
    assert hint(word).startswith(answer)


def test_a_command_without_the_keys_answers_by_spelling_alone():
    assert did_you_mean_key("preset", ["episodes", "seed"], "see the help") == "see the help"
    assert did_you_mean_key("n_eval_episodes", ["episodes"], "-") == "did you mean episodes?"
