"""Which Ray a process is to use; decided here alone, and without loading Ray."""

import dataclasses
import os
import sys
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class RayChoice:
    """The caller's Ray, an embedded one, or a cluster.

    address: of the cluster, "auto" or HOST:PORT; "" for the others.
    from_shell: RAY_ADDRESS names it.
    """

    kind: Literal["caller's", "embedded", "cluster"]
    address: str = ""
    from_shell: bool = False

    @property
    def doing(self) -> str:
        """What connecting to it does, as a user reads it."""
        return {
            "caller's": "using the caller's Ray",
            "embedded": "starting Ray",
            "cluster": "joining the Ray cluster",
        }[self.kind]


def which_ray(address: str | None) -> RayChoice:
    """The caller's, if it has connected; embedded, if no address is given or "local" is.

    address: as configured; where it is None or "auto", RAY_ADDRESS counts if it is set.
    """
    if has_joined_ray():
        return RayChoice("caller's")
    from_shell = os.environ.get("RAY_ADDRESS") if address in (None, "", "auto") else None
    chosen = from_shell or address
    if chosen in (None, "", "local"):
        return RayChoice("embedded")
    return RayChoice("cluster", chosen, bool(from_shell))


def has_joined_ray() -> bool:
    """Whether the caller has connected to Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
