"""Deals out env steps so that the total is exact.

A worker steps only inside its allowance. What a dead worker left unused goes back to
the pool, so `sum of allowances + pool = total_env_steps` always.
"""

Stream = tuple[int, int]
"""(worker, incarnation)."""


class StepBudget:
    """Allowances of env steps per worker incarnation.

    total_env_steps: to be taken by all workers together.
    min_grant: smallest allowance dealt at once, while the pool has it.
    pool: what is not dealt.
    """

    def __init__(self, total_env_steps: int, min_grant: int):
        if total_env_steps < 1 or min_grant < 1:
            raise ValueError(
                f"total_env_steps {total_env_steps} and min_grant {min_grant} must be at least 1"
            )
        self.total_env_steps = self.pool = total_env_steps
        self._min_grant = min_grant
        self._allowances: dict[Stream, int] = {}

    def allowance(self, stream: Stream) -> int:
        return self._allowances.get(stream, 0)

    def grant(self, stream: Stream, stepped: int, ahead: int) -> int:
        """Raises the allowance to `stepped + ahead` where the pool permits; returns it.

        ahead: env steps the worker is expected to take until it asks twice more.
        """
        wanted = stepped + max(ahead, self._min_grant) - self.allowance(stream)
        return self._deal(stream, min(max(wanted, 0), self.pool))

    def release(self, stream: Stream, stepped: int) -> None:
        """Returns what a dead incarnation left unused; `stepped` were taken by it."""
        self._deal(stream, min(stepped - self.allowance(stream), 0))

    def _deal(self, stream: Stream, env_steps: int) -> int:
        """Moves steps from the pool to an allowance, or back; returns the allowance."""
        self.pool -= env_steps
        self._allowances[stream] = self.allowance(stream) + env_steps
        return self._allowances[stream]
