"""What this process has joined already."""

import sys


def has_joined_ray() -> bool:
    """Whether the caller has connected to Ray; loads nothing."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
