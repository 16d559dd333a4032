"""What a run's processes take on this machine, and whether that is there.

Only for a Ray of the run's own: what a cluster has is for its scheduler to know.
"""

import dataclasses

from distdqn.config import Config
from distdqn.errors import ResourceError
from distdqn.machine.cpu import usable_cores
from distdqn.machine.joined import which_ray
from distdqn.machine.memory import free_memory, free_swap
from distdqn.machine.threads import free_threads

# Measured as PSS: Ray's own processes with the driver; one that loads PyTorch; one that loads
# what a shard needs; control or weight server.
_RAY_BYTES, _TORCH_BYTES, _SHARD_BYTES, _PLAIN_BYTES = 4e8, 1.9e8, 1.1e8, 6e7
_RAY_PROCESSES = 8

# Of a process of Ray, by cores: 24 with 2, 33 with 8, 44 with 16, 52 with 32 and more.
_THREADS, _MORE_THREADS = 22, 30

_MARGIN = 0.9


@dataclasses.dataclass(frozen=True, slots=True)
class StartBudget:
    """Processes of a run, Ray's own among them, and what they take.

    What the environments hold comes on top.
    """

    processes: int
    threads: int
    process_bytes: int
    replay_bytes: int

    @property
    def in_all(self) -> int:
        return self.process_bytes + self.replay_bytes

    def line(self) -> str:
        """One line for a person."""
        return (
            f"{self.processes:,} processes with about {self.threads:,} threads and "
            f"{_gibibytes(self.in_all)}, the replay included; environments come on top; "
            f"{_gibibytes(_free())} are free, swap included"
        )


def has_own_ray(config: Config) -> bool:
    """Whether the run starts a Ray here."""
    return config.mode != "lockstep" and which_ray(config.address).kind == "embedded"


def start_budget(config: Config, replay_bytes: int) -> StartBudget:
    """Of a run with a Ray of its own; replay_bytes: of all shards together."""
    plain = 2 if config.mode == "async" else 0  # control and weight server
    torch = config.workers.count + 2  # learner and evaluator
    shards = config.replay.shards
    processes = _RAY_PROCESSES + plain + torch + shards
    size = _RAY_BYTES + plain * _PLAIN_BYTES + torch * _TORCH_BYTES + shards * _SHARD_BYTES
    threads = processes * (_THREADS + min(usable_cores(), _MORE_THREADS))
    return StartBudget(processes, threads, int(size), replay_bytes)


def check_start_fits(config: Config, replay_bytes: int) -> None:
    """Refuses, before the start, a run whose processes this machine cannot hold."""
    budget, memory = start_budget(config, replay_bytes), _free()
    threads, limit = free_threads()
    missing = []
    if budget.in_all > memory:
        missing.append(
            f"{_gibibytes(budget.process_bytes)} of memory beside {_gibibytes(replay_bytes)} of "
            f"replay where {_gibibytes(memory)} are free, swap included"
        )
    if budget.threads > threads:
        missing.append(f"{budget.threads:,} threads where {limit} allows {int(threads):,} more")
    if missing:
        raise ResourceError(
            f"workers.count {config.workers.count:,} and replay.shards {config.replay.shards:,} "
            f"take {budget.processes:,} processes with about {', and '.join(missing)}; "
            f"{_way_out(config, budget, memory, threads)}"
        )


def _way_out(config: Config, budget: StartBudget, memory: float, threads: float) -> str:
    """What to lower, and how far; with a margin, since other programs come and go."""
    over_bytes = max(budget.in_all - memory, 0)
    over_processes = max(budget.threads - threads, 0) * budget.processes / budget.threads
    ways: list[str] = []
    for key, value, size in (
        ("workers.count", config.workers.count, _TORCH_BYTES),
        ("replay.shards", config.replay.shards, _SHARD_BYTES),
    ):
        fits = int(_MARGIN * (value - max(over_bytes / size, over_processes)))
        if fits >= 1 and not ways:
            ways.append(f"--{key} to about {fits:,}")
    share = 1 - over_bytes / max(budget.replay_bytes, 1)
    if share > 0 and not over_processes and budget.replay_bytes > budget.process_bytes:
        ways.append(f"--replay.capacity to about {int(_MARGIN * share * config.replay.capacity):,}")
    if ways:
        return f"lower {' or '.join(ways)}"
    return "end other programs, or join a cluster with --address"


def _free() -> int:
    """Bytes; much of what idle processes hold may lie in swap."""
    return free_memory() + free_swap()


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
