"""Makes every part from the configuration.

`Factory` travels to the actors as a constructor argument; each method runs in the process that
needs its part and imports only what that part needs, so a replay shard never loads torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distdqn.config import Config
from distdqn.config.schedules import in_env_steps
from distdqn.config.sections import function_name
from distdqn.config.tree import resolved_error_band
from distdqn.errors import UnknownEnvError
from distdqn.files.replay_files import saving_bytes
from distdqn.networks.pictures import check_torso, suited_torso
from distdqn.replay.layout import (
    MemoryBudget,
    check_compression,
    check_replay_fits,
    memory_budget,
    planned_frames_per_item,
    replay_bytes,
)
from distdqn.run.refusals import check_gpus, check_initial, check_travels
from distdqn.run.start_budget import StartBudget, check_start_fits, has_own_ray, start_budget
from distdqn.types import ObservationSpec

if TYPE_CHECKING:
    import torch

    from distdqn.acting.rollout import Rollout
    from distdqn.evaluation.play import Greedy
    from distdqn.learning.learner import Learner
    from distdqn.learning.prefetch import Prefetcher
    from distdqn.learning.training import Training
    from distdqn.rate_limiter import RateLimiter
    from distdqn.replay.replay import Replay
    from distdqn.replay.shard import ShardAccount


@dataclasses.dataclass(frozen=True)
class Factory:
    """What a run is made of.

    observation, num_actions, action_start, observation_space: of the environment.
    make_env, make_network: the user's own, or None.
    """

    config: Config
    observation: ObservationSpec
    num_actions: int
    action_start: int
    observation_space: Any
    make_env: Callable[[], Any] | None = None
    make_network: Callable[[Any, int], Any] | None = None

    @property
    def made_with(self) -> list[str]:
        """Which of the caller's own functions the run is made with, and needs again."""
        names = ("make_env", "make_network")
        return [name for name in names if getattr(self, name) is not None]

    @property
    def has_own_network(self) -> bool:
        """Whether code of the user's makes the network or its torso."""
        return self.make_network is not None or ":" in self.config.network.torso

    def network(self) -> torch.nn.Module:
        """The Q-network with its initial parameters, the same in every process.

        In float64 these are the float32 ones, exactly.
        """
        import torch

        from distdqn.envs.spaces import seen_space
        from distdqn.networks.q_network import check_network, make_network, users_code

        torch.manual_seed(self.config.seed)
        torch.set_num_threads(1)
        if self.make_network is not None:
            with users_code(f"make_network, {function_name(self.make_network)},"):
                module = self.make_network(self.observation_space, self.num_actions)
        else:
            net = self.config.network
            module = make_network(
                self.observation,
                self.num_actions,
                torso=net.torso,
                hidden=tuple(net.hidden),
                dueling=net.dueling,
                observation_space=seen_space(self.observation, self.observation_space),
            )
        is_double = self.config.learner.precision == "float64"
        if is_double and isinstance(module, torch.nn.Module):
            module = module.double()
        check_network(module, self.observation, self.num_actions)
        return module

    def check_network(self, initial: Mapping[str, np.ndarray] | None) -> None:
        """Makes the network here, where it is the user's own or is to begin with `initial`.

        initial: parameters by name.  Raises ConfigError. The caller's random numbers and
        threads of torch stay as they are.
        """
        if not self.has_own_network and initial is None:
            return
        import torch

        threads = torch.get_num_threads()
        try:
            with torch.random.fork_rng(devices=[]):
                network = self.network()
        finally:
            torch.set_num_threads(threads)
        if initial is not None:
            check_initial(self.config.init_from, network, initial)

    def network_description(self) -> dict[str, Any]:
        """What a checkpoint says of the network, see `Checkpoint`."""
        from distdqn.envs.spaces import to_plain

        network = self.config.network
        return {
            "observation": dataclasses.asdict(self.observation),
            "observation_space": to_plain(self.observation_space),
            "num_actions": self.num_actions,
            "action_start": self.action_start,
            "torso": network.torso,
            "hidden": list(network.hidden),
            "dueling": network.dueling,
            "custom": self.make_network is not None,
        }

    def stepper(self, num_envs: int, render_mode: str | None = None) -> Any:
        from distdqn.envs.make import make_stepper

        env = self.config.env
        try:
            return make_stepper(env, num_envs, make_env=self.make_env, render_mode=render_mode)
        except UnknownEnvError as error:  # the process that made this factory knew it
            raise UnknownEnvError(
                f"environment {env.id!r} is registered in the process that began the run alone, "
                f"not in those of its parts: set env.id to MODULE:{env.id}, which imports the "
                "module that registers it"
            ) from error

    def rollout(self, worker: int, incarnation: int, stepper: Any = None) -> Rollout:
        """stepper: to go on with, None to make the envs."""
        from distdqn.acting.rollout import Rollout, RolloutSettings

        config, workers = self.config, self.config.workers
        settings = RolloutSettings(
            n_step=config.learner.n_step,
            discount=config.learner.discount,
            block_transitions=workers.block_transitions,
            max_block_age_s=workers.max_block_age_s,
            seed=config.seed,
            with_priorities=config.replay.kind == "prioritized",
            double=config.learner.double,
        )
        stepper = stepper or self.stepper(workers.envs_per_worker)
        epsilons = self.epsilons(worker)
        return Rollout(stepper, self.network(), settings, epsilons, worker, incarnation)

    def epsilons(self, worker: int) -> Callable[[int], np.ndarray]:
        """Exploration rates of one worker's envs by the env-step clock."""
        from distdqn.acting.exploration import ladder

        workers, epsilon = self.config.workers, self.config.workers.epsilon
        num_envs = workers.envs_per_worker
        if epsilon.kind == "schedule":
            return lambda env_steps: np.full(num_envs, epsilon.value.at(env_steps))
        rungs = ladder(workers.count * num_envs, epsilon.base, epsilon.alpha)
        own = rungs[worker * num_envs : (worker + 1) * num_envs]
        return lambda env_steps: own

    def control_arguments(self, min_grant: int, report_period_s: float) -> dict[str, Any]:
        """Of `Control`, in whichever process it is made."""
        config = self.config
        return {
            "total_env_steps": config.total_env_steps,
            "num_workers": config.workers.count,
            "num_shards": config.replay.shards,
            "min_grant": min_grant,
            "report_period_s": report_period_s,
            "is_counted": self.is_counted,
            "stop_at_return": config.eval.stop_at_return,
            "discount": config.learner.discount,
        }

    def is_counted(self, env: int) -> bool:
        """Whether an env is in the third with the lowest epsilons (all, without a ladder)."""
        workers = self.config.workers
        num_envs = workers.count * workers.envs_per_worker
        return workers.epsilon.kind == "schedule" or env >= num_envs - -(-num_envs // 3)

    @property
    def shard_capacities(self) -> list[int]:
        """Items of each shard; all together hold exactly `replay.capacity`."""
        replay = self.config.replay
        whole, left = divmod(replay.capacity, replay.shards)
        return [whole + (shard < left) for shard in range(replay.shards)]

    def replay(self, shard: int, epoch: int) -> Replay:
        from distdqn.replay.replay import Replay
        from distdqn.replay.sampling import PlainSampler, PrioritizedSampler

        capacity, settings = self.shard_capacities[shard], self.config.replay
        sampler: Any
        if settings.kind == "prioritized":
            powers = (settings.priority_exponent, settings.priority_epsilon)
            sampler = PrioritizedSampler(capacity, *powers)
        else:
            sampler = PlainSampler(capacity, in_order=settings.kind == "fifo")
        return Replay(
            capacity=capacity,
            observation=self.observation,
            num_actions=self.num_actions,
            sampler=sampler,
            seed=self.config.seed * 1000 + shard,
            epoch=epoch,
            frames_per_item=self.frames_per_item(),
            compression=settings.compression,
        )

    def shard(self, shard: int, epoch: int) -> ShardAccount:
        """A replay with the account of its use."""
        from distdqn.replay.shard import ShardAccount

        return ShardAccount(self.replay(shard, epoch), shard)

    def first_insert_limit(self) -> int:
        """What one shard may accept before the learner is there to grant more."""
        replay = self.config.replay
        ahead = resolved_error_band(self.config) / replay.samples_per_insert
        return int((replay.min_size_to_sample + ahead) / replay.shards)

    def learner(self) -> Learner:
        """The learner alone, on its device."""
        from distdqn.learning.learner import Learner

        network, settings = self.network(), self.config.learner
        # A graph is captured at a moment of its own; lockstep swaps nothing.
        cuda_graph = settings.compile and self.config.mode == "async"
        return Learner(network, settings, self.observation, self.num_actions, cuda_graph)

    def limiter(self) -> RateLimiter:
        """The account of samples and inserts."""
        from distdqn.rate_limiter import RateLimiter

        config = self.config
        return RateLimiter(
            samples_per_insert=config.replay.samples_per_insert,
            min_size_to_sample=config.replay.min_size_to_sample,
            error_band=resolved_error_band(config),
            total_env_steps=config.total_env_steps,
            batch_size=config.learner.batch_size,
        )

    def training(self) -> Training:
        """The learner with its schedules."""
        from distdqn.learning.training import Training

        learner, replay = self.config.learner, self.config.replay
        return Training(
            self.learner(),
            learner.learning_rate.at,
            replay.importance_sampling_exponent.at,
            with_target=replay.kind == "prioritized" and learner.gradient == "semi",
        )

    def learner_core(self) -> tuple[Training, Prefetcher, Callable[[Learner, bool], Any]]:
        """Of the learner's actor: training, where its batches come from, `start_compiling`."""
        from distdqn.learning.prefetch import Prefetcher

        learner = self.config.learner
        sizes = (learner.superbatch, learner.batch_size, learner.prefetch)
        prefetcher = Prefetcher(self.limiter(), *sizes, self.config.seed)
        return self.training(), prefetcher, self.start_compiling

    def start_compiling(self, learner: Learner, with_action_mask: bool) -> Any:
        """Compiles the update beside the learner; None where it is to stay eager."""
        if not self.config.learner.compile or learner.device.type != "cpu":
            return None
        from distdqn.learning.compilation import compile_update

        # Below the learner, above the workers: behind them it would starve.
        return compile_update(learner, with_action_mask, nice=5)

    @property
    def updates_take_several_cores(self) -> bool:
        """Whether a learner on the CPU computes with several threads, as far as is known
        before there is a network: by default those of large convolutional ones do.
        """
        config = self.config
        if config.learner.num_threads is not None:
            return config.learner.num_threads > 1
        torso = config.network.torso
        torso = suited_torso(self.observation) if torso == "auto" else torso
        return self.make_network is None and torso == "nature"

    def evaluator(self) -> Greedy:
        """Greedy episodes in this process."""
        from distdqn.evaluation.play import Greedy

        return Greedy(
            self.network(),
            self.stepper,
            self.config.eval.max_episode_steps,
            discount=self.config.learner.discount,
            epsilon=self.config.eval.epsilon,
        )

    def replay_bytes(self) -> int:
        """Memory that all shards together will take, in lockstep with what saving them takes.

        Compressed frames count with the least that they may take: refused before the start is
        only what cannot fit however well they shrink.
        """
        of_each = self._what_is_held()
        held = [replay_bytes(capacity, **of_each) for capacity in self.shard_capacities]
        saves = self.config.mode != "async"  # one shard after another
        return sum(held) + (saving_bytes(max(held)) if saves else 0)

    def memory_budget(self) -> MemoryBudget:
        """What the full replay takes, for a person to read before the start."""
        return memory_budget(self.shard_capacities, **self._what_is_held())

    def start_budget(self) -> StartBudget | None:
        """What the run's processes take here; None where it starts no Ray of its own."""
        return start_budget(self.config, self.replay_bytes()) if has_own_ray(self.config) else None

    def budget_lines(self) -> list[str]:
        """What the run takes here, for a person to read before the start."""
        budgets = (self.memory_budget(), self.start_budget())
        return [budget.line() for budget in budgets if budget]

    def _what_is_held(self) -> dict[str, Any]:
        replay = self.config.replay
        return {
            "observation": self.observation,
            "num_actions": self.num_actions,
            "prioritized": replay.kind == "prioritized",
            "frames_per_item": self.frames_per_item(),
            "compression": replay.compression,
        }

    def frames_per_item(self) -> float:
        workers = self.config.workers
        return planned_frames_per_item(
            self.shard_capacities[0],
            self.observation.stack,
            self.config.learner.n_step,
            workers.envs_per_worker,
            workers.block_transitions,
        )


def make_factory(
    config: Config,
    make_env: Callable[[], Any] | None = None,
    make_network: Callable[[Any, int], Any] | None = None,
) -> Factory:
    """Describes the environment; every refusal that needs no Ray comes from here.

    Schedules that follow the run's length are in env steps from here on.
    """
    from distdqn.envs.make import describe

    own_ray = has_own_ray(config)
    is_here = own_ray or config.mode == "lockstep"  # learner and shards
    if is_here:
        check_gpus(config)
    env = describe(config.env, make_env)
    spaces = (env.observation, env.num_actions, env.action_start, env.observation_space)
    factory = Factory(in_env_steps(config), *spaces, make_env, make_network)
    check_compression(config.replay.compression, factory.observation)
    if make_network is None:
        check_torso(config.network.torso, factory.observation)
    if is_here:
        check_replay_fits(factory.replay_bytes(), config.replay.capacity)
    if own_ray:
        check_start_fits(config, factory.replay_bytes())
    if config.mode != "lockstep":
        for name in factory.made_with:
            check_travels(name, getattr(factory, name))
    return factory
