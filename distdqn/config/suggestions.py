"""What is meant by a word that nothing has: by spelling, and by what other libraries say.

A name of Stable-Baselines3, CleanRL or RLlib leads to our key by meaning first; a note says
where the meaning differs.
"""

import difflib
from collections.abc import Callable, Iterable

_EPSILON = "workers.epsilon.value"
_EPSILON_ENDS = f"It is {_EPSILON}'s START:END:ENV_STEPS, or START:END:30%"

TABLE = (  # our key, "" where there is none; the others' names; what to know
    ("env.id", "env env_id env_name env.name gym_id environment task", ""),
    ("env.kwargs", "env_config env_kwargs", ""),
    ("env.frame_stack", "framestack num_stack n_stack stack_size", ""),
    ("env.reward_clip", "clip_rewards clip_reward", "It takes the bound: 1 clips to [-1, 1]"),
    ("env.wrappers", "env_wrapper env_wrappers wrapper wrapper_class", ""),
    ("env.atari.frame_skip", "frameskip action_repeat", ""),
    ("env.atari.sticky_actions", "repeat_action_probability action_repeat_probability", ""),
    ("env.atari.size", "screen_size", ""),
    ("env.atari.terminal_on_life_loss", "episodic_life", ""),
    ("workers.count", "num_workers num_env_runners num_rollout_workers num_actors n_workers", ""),
    (
        "workers.envs_per_worker",
        "num_envs n_envs num_envs_per_env_runner num_envs_per_worker",
        "In all there are workers.count times as many",
    ),
    ("workers.num_cpus", "num_cpus_per_env_runner num_cpus_per_worker", ""),
    ("workers.resources", "custom_resources_per_env_runner custom_resources_per_worker", ""),
    (
        "workers.block_transitions",
        "rollout_fragment_length",
        "It is over all the worker's envs",
    ),
    (
        _EPSILON,
        "exploration_fraction",
        "A fraction of 0.3 is the 30% of START:END:30%",
    ),
    (
        _EPSILON,
        "exploration_initial_eps exploration_final_eps start_e end_e eps_start eps_end "
        "epsilon_start epsilon_end epsilon_decay initial_epsilon final_epsilon epsilon_timesteps "
        "exploration_config exploration",
        _EPSILON_ENDS,
    ),
    (_EPSILON, "epsilon eps explore", "It takes a number, START:END:ENV_STEPS or START:END:30%"),
    ("replay.capacity", "buffer_size memory_size replay.size replay_size replay_buffer_size", ""),
    ("replay.capacity", "replay_buffer_config buffer replay_buffer", "All of replay.* is there"),
    (
        "replay.min_size_to_sample",
        "learning_starts num_steps_sampled_before_learning_starts warmup_steps start_steps "
        "min_replay_size initial_buffer_size",
        "It counts transitions in the replay",
    ),
    (
        "replay.samples_per_insert",
        "train_freq train_frequency update_every",
        "It is learner.batch_size over the env steps from one update to the next",
    ),
    (
        "replay.samples_per_insert",
        "gradient_steps updates_per_step utd_ratio replay_ratio num_updates",
        "It is learner.batch_size times the updates per env step",
    ),
    ("replay.samples_per_insert", "training_intensity", ""),
    ("replay.kind", "prioritized_replay prioritized per use_per", "It takes prioritized"),
    (
        "replay.priority_exponent",
        "alpha prioritized_replay_alpha",
        "That is of prioritized replay; the ladder of epsilons has workers.epsilon.alpha",
    ),
    (
        "replay.importance_sampling_exponent",
        "beta prioritized_replay_beta",
        "That is of prioritized replay",
    ),
    ("replay.priority_epsilon", "prioritized_replay_eps", ""),
    (
        "learner.batch_size",
        "batch train_batch_size train_batch_size_per_learner minibatch_size bs",
        "",
    ),
    ("learner.learning_rate", "lr step_size", ""),
    (
        "learner.learning_rate",
        "lr_schedule lr_decay lr_scheduler",
        "It takes START:END:ENV_STEPS or START:END:30% too",
    ),
    ("learner.optimizer", "optim optimizer_class", ""),
    ("learner.optimizer_eps", "adam_epsilon adam_eps optimizer_kwargs", ""),
    ("learner.optimizer_momentum", "momentum", ""),
    ("learner.loss", "loss_fn td_error_loss_fn criterion", ""),
    ("learner.double", "double_q double_dqn use_double ddqn", ""),
    ("learner.n_step", "n_steps multi_step nstep", ""),
    ("learner.discount", "gamma discount_factor", ""),
    ("learner.max_grad_norm", "grad_clip gradient_clip clip_grad_norm grad_norm_clip", ""),
    (
        "learner.target_period",
        "target_update_interval target_network_frequency target_network_update_freq "
        "target_update_freq target_update target_update_period sync_target_frequency",
        "It counts gradient steps; there it is env steps",
    ),
    ("learner.target_tau", "tau polyak soft_update_tau", ""),
    ("learner.device", "device cuda", ""),
    ("learner.num_gpus", "num_gpus num_gpus_per_learner gpus", ""),
    ("network.hidden", "net_arch hiddens fcnet_hiddens hidden_sizes hidden_layers", ""),
    (
        "network.torso",
        "policy_kwargs policy model custom_model features_extractor_class conv_filters network",
        "network.hidden and network.dueling are beside it",
    ),
    (
        "eval.period_env_steps",
        "eval_freq eval_frequency eval_interval evaluation_interval",
        "It counts env steps over all envs",
    ),
    ("eval.episodes", "n_eval_episodes num_eval_episodes eval_episodes evaluation_duration", ""),
    (
        "eval.stop_at_return",
        "reward_threshold stop_reward target_return episode_reward_mean episode_return_mean",
        "",
    ),
    ("eval.video_episodes", "capture_video record_video video", "It is a number of episodes"),
    ("checkpoint.period_s", "save_freq checkpoint_frequency checkpoint_freq", "It is in seconds"),
    (
        "total_env_steps",
        "total_timesteps n_timesteps num_timesteps timesteps_total timesteps max_steps "
        "total_steps num_env_steps_sampled_lifetime num_frames",
        "",
    ),
    ("mode", "torch_deterministic deterministic", "Lockstep is deterministic"),
    ("run_name", "exp_name experiment_name tb_log_name name", ""),
    ("runs_dir", "tensorboard_log log_dir logdir local_dir storage_path save_path out", ""),
    ("address", "ray_address cluster", ""),
    ("init_from", "pretrained load_from restore", ""),
    ("", "resume", "`distdqn resume RUN` goes on with a run that was broken off"),
    ("", "preset", "a preset is chosen by --preset NAME, in Python by load_config(preset=NAME)"),
    ("", "config", "a file is read by --config FILE.yaml, in Python by load_config(FILE)"),
    ("", "optimize_memory_usage", "there is nothing to set: each frame is stored once"),
    ("", "save_model", "there is nothing to set: the weights are always saved"),
    ("", "num_atoms n_atoms v_min v_max", "there is no distributional Q-learning here"),
    ("", "noisy noisy_nets sigma0", "there are no noisy layers here; workers.epsilon explores"),
    (
        "",
        "track wandb_project_name use_wandb",
        "there is nothing to set: TensorBoard's events.* and metrics.jsonl are in the run's folder",
    ),
    ("", "framework", "there is nothing to set: networks are of torch"),
    ("", "num_learners", "there is nothing to set: a run has one learner"),
)

_BY_NAME = {name: (key, note) for key, names, note in TABLE for name in names.split()}
_MEANT = {  # commands and values that others have, by ours
    **{"play": "evaluate", "enjoy": "evaluate", "run": "train", "learn": "train"},
    **{"gpu": "cuda", "sync": "lockstep", "deterministic": "lockstep", "per": "prioritized"},
}
_A_KEY = "replay.capacity"  # which only what has all keys has
_ALIKE, _CLOSE = 0.6, 0.8  # likeness of a word to ours, and to those of others, which are many


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The known word that `word` means or is most like; `otherwise`, where nothing is alike."""
    words = list(known)
    word = _MEANT[word] if _MEANT.get(word) in words else word
    best = max(words, key=lambda candidate: _likeness(word, candidate))
    return f"did you mean {best}?" if _likeness(word, best)[0] >= _ALIKE else otherwise


def did_you_mean_key(
    word: str, known: Iterable[str], otherwise: str, shown: Callable[[str], str] = str
) -> str:
    """What to say of a key that nothing has: the known one meant, with a note.

    known: keys.  otherwise: what to say where none is alike.  shown: how a key is written.
    """
    keys = list(known)
    others = {
        name: to for name, to in _BY_NAME.items() if (to[0] or _A_KEY) in keys and name not in keys
    }
    name = word if word in others else word.rpartition(".")[2]
    if name not in others:
        near = [other for other in others if _likeness(word, other)[0] >= _CLOSE]
        name = max([*keys, *near], key=lambda candidate: _likeness(word, candidate))
        if _likeness(word, name)[0] < _ALIKE:
            return otherwise
    key, note = others.get(name, (name, ""))
    return " ".join(filter(None, (key and f"did you mean {shown(key)}?", note)))


def _likeness(word: str, candidate: str) -> tuple[float, float]:
    """How alike two words are, in [0, 1]: at best, and as a whole.

    At best: as a whole, or by what follows their last dots.
    """
    whole = difflib.SequenceMatcher(None, word, candidate).ratio()
    ends = word.rpartition(".")[2], candidate.rpartition(".")[2]
    return max(whole, difflib.SequenceMatcher(None, *ends).ratio()), whole
