"""The tests' one local Ray: comes up when first asked for, and again where it has died."""

from collections.abc import Callable
from typing import Any, Protocol

TRIES = 2  # at once
MOST_TRIES = 6  # in a row without success, before each test fails without trying


class Started(Protocol):
    """What `start` returns."""

    cluster: Any

    def is_alive(self) -> bool: ...

    def stop(self) -> None: ...


class SharedCluster:
    """Holds what `start` made while it lives; a failure is the asking test's own.

    start: brings Ray up, or raises and leaves nothing behind.
    """

    def __init__(self, start: Callable[[], Started]):
        self._start = start
        self._started: Started | None = None
        self._failures: list[str] = []

    def get(self) -> Any:
        """The cluster, living; raises RuntimeError naming every failed try."""
        if self._started is not None and not self._started.is_alive():
            self.stop()
        for _ in range(TRIES):
            if self._started is None and len(self._failures) < MOST_TRIES:
                self._try()
        if self._started is None:
            lines = "; ".join(self._failures)
            raise RuntimeError(f"Ray did not start, tried {len(self._failures)} times: {lines}")
        return self._started.cluster

    def _try(self) -> None:
        try:
            self._started = self._start()
        except Exception as error:  # whatever Ray raises: bare Exception among others
            self._failures.append(f"{type(error).__name__}: {error}")
        else:
            self._failures.clear()

    def stop(self) -> None:
        started, self._started = self._started, None
        if started is not None:
            started.stop()


class LocalRay:
    """A head node with 8 logical CPUs, joined by this process; tests may add nodes."""

    def __init__(self) -> None:
        import psutil
        import ray
        from ray.cluster_utils import Cluster

        from distdqn.run.ray_session import end_half_started

        older = {child.pid for child in psutil.Process().children(recursive=True)}
        try:
            self.cluster = Cluster(initialize_head=True, head_node_args=_head())
            ray.init(
                address=self.cluster.address,
                namespace="tests",
                log_to_driver=False,
                configure_logging=False,
            )
        except BaseException:
            ray.shutdown()
            end_half_started(older)
            raise

    def is_alive(self) -> bool:
        """Whether the head's GCS and raylet run and this process is still joined to them."""
        import ray

        dead = {kind for kind, _ in self.cluster.head_node.dead_processes()}
        return ray.is_initialized() and not dead & {"gcs_server", "raylet"}

    def stop(self) -> None:
        import ray

        ray.shutdown()
        self.cluster.shutdown()


def _head() -> dict[str, Any]:
    """As few processes as will do: they all start at once, on two cores that others use."""
    # A node that was killed refuses the checks at once; one that is only slow has time.
    quick_death_notice = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 10_000,
        "health_check_failure_threshold": 4,
    }
    # Ray else starts a worker per CPU, and lets ray.init wait for the first of them.
    on_demand = {"enable_worker_prestart": False, "prestart_worker_first_driver": False}
    return {
        "num_cpus": 8,
        "include_dashboard": False,
        "include_log_monitor": False,
        "no_monitor": True,  # the autoscaler
        "_system_config": quick_death_notice | on_demand,
    }
