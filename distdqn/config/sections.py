"""The sections of a configuration, one frozen dataclass each.

The text under a field is its help on the command line; its `Range` says what is refused
and why. Construction checks each field by itself, `tree.Config` what holds between them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from distdqn.config.calls import Call, parse_call
from distdqn.config.values import Range, Schedule, section

_FUNCTION = "function "  # begins the env.id of a run that was made from one


def function_name(make: Callable[..., Any]) -> str:
    """`module.qualname` of a function; of a `functools.partial` that of what it calls."""
    while hasattr(make, "func"):
        make = make.func
    named = make if hasattr(make, "__qualname__") else type(make)
    return f"{named.__module__}.{named.__qualname__}"


def function_id(make_env: Callable[[], Any]) -> str:
    """The `env.id` of a run whose envs `make_env` makes: no id of Gymnasium's is like it."""
    return _FUNCTION + function_name(make_env)


def is_function(env_id: str) -> bool:
    """Whether an `env.id` stands for a function, which only Python can pass."""
    return env_id.startswith(_FUNCTION)


def short_name(env_id: str) -> str:
    """What a run is named after: the id itself, or the function's own name."""
    return env_id.rpartition(".")[2] if is_function(env_id) else env_id


_NO_RESERVE = "Ray cannot reserve less than nothing"
_Resources = Annotated[Mapping[str, float], Range(_NO_RESERVE, 0)]


@section("env.atari.")
class AtariConfig:
    """Atari games (ids ALE/<Game>-v5), whose own settings these replace.

    For the same actions both backends give the same frames, rewards and ends where nothing
    is random. `sticky_actions` is that of Machado et al. 2018, section 5.3.
    """

    backend: Literal["ale", "gymnasium"] = "ale"
    """ale: the vector env of ale-py; gymnasium: single envs behind Gymnasium's wrappers."""
    frame_skip: Annotated[int, Range("an agent step would be no frame", 1)] = 4
    """Emulator frames per agent step, the action repeated."""
    sticky_actions: Annotated[float, Range("it is a probability", 0, 1)] = 0.25
    """Probability at each frame that the emulator repeats the action before."""
    noop_max: Annotated[int, Range("actions cannot be fewer than none", 0)] = 0
    """A game begins with up to so many no-ops, uniformly from 1; 0: with none."""
    size: Annotated[int, Range("the networks need a picture", 1)] = 84
    """Height and width of a picture."""
    grayscale: bool = True
    """One channel in place of three."""
    max_pool: bool = True
    """The maximum of a step's last two frames, against flicker."""
    terminal_on_life_loss: bool = False
    """A lost life ends an episode of learning; the game goes on, and returns are of whole games."""
    full_action_space: bool = False
    """All 18 actions in place of the game's own."""
    fire_on_reset: bool = False
    """Presses FIRE once at a game's start, and after a lost life where that ends an episode."""
    max_frames: Annotated[int, Range("a game needs a frame", 1)] = 108_000
    """Emulator frames after which a game is cut (truncated)."""


@section("env.")
class EnvConfig:
    """The environment and its rewards.

    With a `make_env`, `kwargs` is not read, a changed `atari` is refused, `frame_stack` none
    is 1, and the run records `id` as `function <module>.<qualname>`.
    """

    id: str = "CartPole-v1"
    """Gymnasium id, or `module:Id-v0` to import the module that registers it first."""
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Constructor arguments, as JSON or YAML: '{"is_slippery": false}'."""
    frame_stack: Annotated[
        int | None, Range("none would show nothing, many would fill batches with old frames", 1, 16)
    ] = None
    """Newest frames in an observation; none: 4 for ids ALE/..., else 1."""
    stack_padding: Literal["zero", "repeat"] = "zero"
    """Before an episode's first frame: zero, as ale-py; repeat it, as Gymnasium's wrapper."""
    reward_scale: Annotated[float, Range("rewards would vanish or turn sign", 0, above=True)] = 1.0
    """Rewards are multiplied by it, before clipping; reported returns stay raw."""
    reward_clip: Annotated[float | None, Range("every reward would become 0", 0, above=True)] = None
    """Rewards are clipped to [-c, c]; none: not at all."""
    wrappers: tuple[Call, ...] = ()
    """Gymnasium's or module:function, innermost first, as NAME or 'NAME(ARGUMENT=VALUE)'."""
    atari: AtariConfig = dataclasses.field(default_factory=AtariConfig)

    @property
    def wrapper_calls(self) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of each wrapper, the innermost first."""
        return [parse_call(text) for text in self.wrappers]

    @property
    def is_atari(self) -> bool:
        """Whether the id is of a game that `atari` is about."""
        return self.id.rpartition(":")[2].startswith("ALE/")

    @property
    def is_function(self) -> bool:
        """Whether the id stands for a function that made the envs."""
        return is_function(self.id)


@section("workers.epsilon.")
class EpsilonConfig:
    """Exploration: the probability of a random action."""

    kind: Literal["schedule", "ladder"] = "schedule"
    """schedule: value; ladder: base^(1 + alpha i / (N - 1)) for env i of N, over all workers."""
    value: Annotated[Schedule, Range("it is a probability", 0, 1)] = Schedule(
        1.0, 0.05, fraction=0.5
    )
    """A number, or START:END:LENGTH in env steps or as 30% of total_env_steps (kind schedule)."""
    base: Annotated[float, Range("epsilon is a probability", 0, 1)] = 0.4
    """Epsilon of the most exploring env, and of a single one (kind ladder)."""
    alpha: Annotated[float, Range("epsilon would grow past base", 0)] = 7.0
    """How far epsilon falls along the ladder (kind ladder)."""


@section("workers.")
class WorkersConfig:
    """Acting: env workers step vector envs and push blocks of transitions."""

    count: Annotated[int, Range("without a worker nothing is collected", 1)] = 1
    """Env workers, each a process."""
    envs_per_worker: Annotated[int, Range("a worker without envs collects nothing", 1)] = 16
    """Envs that a worker steps together, with one batched inference."""
    block_transitions: Annotated[int, Range("an empty block would be pushed forever", 1)] = 512
    """Transitions in a block, over all the worker's envs; fewer, larger messages cost less."""
    max_block_age_s: Annotated[float, Range("blocks would go before a step", 0, above=True)] = 2.0
    """Seconds after which a block is pushed though not full, for slow envs."""
    max_in_flight: Annotated[int, Range("a worker could never push", 1)] = 2
    """Blocks pushed and not yet acknowledged; a worker waits beyond that."""
    construct_timeout_s: Annotated[float, Range("no env would be made", 0, above=True)] = 120.0
    """Seconds in which a worker's envs must be made, with all that they import and load."""
    env_timeout_s: Annotated[float, Range("every step would be late", 0, above=True)] = 60.0
    """Seconds without a finished env step after which a worker counts as hung (not in lockstep)."""
    max_env_failures: Annotated[int, Range("failures cannot be fewer than none", 0)] = 10
    """Env failures, over all workers, that are met with a restart; one more stops the run."""
    num_cpus: Annotated[float, Range(_NO_RESERVE, 0)] = 1.0
    """CPUs that Ray reserves for each worker."""
    resources: _Resources = dataclasses.field(default_factory=dict)
    """Custom Ray resources for each worker, as JSON or YAML: '{"cpu_node": 0.1}'."""
    epsilon: EpsilonConfig = dataclasses.field(default_factory=EpsilonConfig)


@section("replay.")
class ReplayConfig:
    """Replay; capacity and limits are totals over all shards."""

    shards: Annotated[int, Range("transitions would have nowhere to go", 1)] = 1
    """Replay shards, each a process."""
    capacity: Annotated[int, Range("nothing could be replayed", 1)] = 100_000
    """Transitions kept; the oldest make room."""
    min_size_to_sample: Annotated[int, Range("an empty replay cannot be sampled", 1)] = 1_000
    """Transitions inserted before the first update."""
    samples_per_insert: Annotated[float, Range("hardly a sample would be owed", 1e-6)] = 12.8
    """Transitions sampled per one inserted: batch_size / env steps from update to update."""
    error_band: Annotated[float | None, Range("acting or learning would stand still", 0)] = None
    """Half width, in samples, of the band around that ratio; none: the smallest safe one."""
    kind: Literal["uniform", "prioritized", "fifo"] = "uniform"
    """prioritized: by |TD error|^priority_exponent; fifo: each once in turn (lockstep, 1 shard)."""
    priority_exponent: Annotated[float, Range("0 is uniform, 1 fully prioritized", 0, 1)] = 0.6
    """Alpha of prioritized replay."""
    priority_epsilon: Annotated[float, Range("some would never be drawn again", 0, above=True)] = (
        1e-6
    )
    """Added to each |TD error| before the exponent."""
    importance_sampling_exponent: Annotated[
        Schedule, Range("0 corrects nothing, 1 the whole sampling bias", 0, 1)
    ] = Schedule.constant(0.4)
    """Beta of prioritized replay; a number or a schedule, as workers.epsilon.value."""
    compression: Literal["none", "lz4"] = "none"
    """Frames in memory; lz4: lossless, Atari frames in 4 to 30 percent, sampling 5 times slower."""


@section("learner.")
class LearnerConfig:
    """Learning: the update, and how batches and weights travel."""

    batch_size: Annotated[int, Range("an update needs a transition", 1)] = 128
    """Transitions in one update."""
    superbatch: Annotated[int, Range("a fetch would bring nothing", 1)] = 32
    """Minibatches fetched in one call."""
    prefetch: Annotated[int, Range("the learner would never fetch", 1)] = 2
    """Superbatches in flight."""
    gradient: Literal["semi", "residual"] = "semi"
    """residual: through the bootstrap value too, by the online network alone; for comparison."""
    learning_rate: Annotated[Schedule, Range("the loss would climb", 0)] = Schedule.constant(2.5e-4)
    """A number or a schedule, as workers.epsilon.value."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """As torch.optim.Adam (betas 0.9, 0.999) or torch.optim.RMSprop."""
    optimizer_eps: Annotated[float, Range("steps could divide by zero", 0, above=True)] = 1e-8
    """Added to the denominator of a step."""
    optimizer_momentum: Annotated[float, Range("steps would grow without end", 0, 0.9999)] = 0.0
    """Momentum (rmsprop only)."""
    rmsprop_decay: Annotated[float, Range("the average would not forget", 0, 0.9999)] = 0.99
    """Decay of the average of squared gradients, torch's alpha (rmsprop only)."""
    rmsprop_centered: bool = False
    """Divide by the estimated standard deviation of the gradient (rmsprop only)."""
    rmsprop_eps_inside_sqrt: bool = False
    """Add optimizer_eps under the square root, as in DQN (2015); torch adds it outside."""
    loss: Literal["huber", "mse"] = "huber"
    """Huber with threshold 1, or squared error, of the TD error."""
    double: bool = False
    """Double Q-learning: the online network selects, the target network evaluates."""
    n_step: Annotated[int, Range("a transition spans a step or more", 1)] = 1
    """Steps from `obs_tm1` to `obs_t`."""
    discount: Annotated[float, Range("returns would not converge", 0, 1)] = 0.99
    """Gamma, per env step."""
    max_grad_norm: Annotated[float | None, Range("no gradient would pass", 0, above=True)] = None
    """Gradients are scaled down to this global norm; none: not at all."""
    target_period: Annotated[int, Range("the target would never move", 1)] = 500
    """Gradient steps from one update of the target network to the next."""
    target_tau: Annotated[float, Range("it is the online network's share", 0, 1, above=True)] = 1.0
    """Share of the online network in that update; 1 copies it, below 1 is Polyak averaging."""
    publish_period: Annotated[int, Range("workers would never get weights", 1)] = 50
    """Gradient steps from one publication of weights to the next."""
    snapshot_period_s: Annotated[float, Range("it would do nothing else", 0, above=True)] = 5.0
    """Seconds between the snapshots from which a dead learner comes back."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    """bfloat16: of the layers, parameters stay float32; float64, on the CPU, for verification."""
    num_threads: Annotated[int | None, Range("nobody would compute", 1)] = None
    """CPU threads of the update; none: 1 for small networks, else all cores but one, 2 of 2."""
    compile: bool = True
    """Compile the update as a whole; where that fails it runs eagerly, as it does in lockstep."""
    num_gpus: Annotated[float, Range(_NO_RESERVE, 0)] = 0.0
    """GPUs that Ray reserves for the learner; 0: it uses one of the driver's node unreserved."""
    resources: _Resources = dataclasses.field(default_factory=dict)
    """Custom Ray resources for the learner, as JSON or YAML."""


@section("network.")
class NetworkConfig:
    """The Q-network."""

    torso: str = "auto"
    """auto (nature or minatar for pictures, else mlp), mlp, nature, minatar, or module:function."""
    hidden: Annotated[tuple[int, ...], Range("a layer needs a unit", 1)] = (120, 84)
    """Units of the hidden layers of an mlp, ReLU between them; nature has 512, minatar 128."""
    dueling: bool = False
    """Separate heads for value and advantage."""


@section("eval.")
class EvalConfig:
    """Evaluation without exploration, by an actor of its own."""

    period_env_steps: Annotated[int | None, Range("evaluation would never rest", 1)] = 10_000
    """Env steps from one evaluation to the next, at least: it begins once the last one has ended;
    none: no evaluation during the run."""
    episodes: Annotated[int, Range("a mean needs an episode", 1)] = 10
    """Episodes of each evaluation during the run."""
    stop_at_return: float | None = None
    """The run ends once an evaluation's mean return reaches it; none: never."""
    final_episodes: Annotated[int, Range("a mean needs an episode", 1)] = 100
    """Fresh episodes at the end, for the last and for the best checkpoint each."""
    video_episodes: Annotated[int, Range("episodes cannot be fewer than none", 0)] = 1
    """Episodes recorded at the end as videos."""
    max_episode_steps: Annotated[int, Range("an episode needs a step", 1)] = 27_000
    """Agent steps after which an episode is cut and counts with its return so far."""
    epsilon: Annotated[float, Range("epsilon is a probability", 0, 1)] = 0.0
    """Probability of a random action in evaluation, as the protocols of Atari have it."""


@section("checkpoint.")
class CheckpointConfig:
    """Durable checkpoints in the run's folder."""

    period_s: Annotated[float, Range("the run would only write", 0, above=True)] = 60.0
    """Seconds between checkpoints (mode async)."""
    period_rounds: Annotated[int, Range("the run would only write", 1)] = 250
    """Rounds between checkpoints (lockstep); each resets every env, so it cuts episodes too."""
    keep: Annotated[int, Range("there would be nothing to resume from", 1)] = 3
    """Newest checkpoints kept, besides the best."""
