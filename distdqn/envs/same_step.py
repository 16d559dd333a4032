"""The true last observations of a vector env that resets in the same step.

Such an env returns the next episode's first observation and puts the last one into
`info["final_obs"]`; learning from the former would bootstrap across episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from distdqn import errors
from distdqn.envs.failures import env_error
from distdqn.envs.observations import ObservationEncoder


def final_observations(
    info: Mapping[str, Any],
    ended: np.ndarray,
    space: gymnasium.Space[Any],
    encoder: ObservationEncoder,
    label: str,
) -> np.ndarray:
    """`[E, *shape]` final observations of the E envs in `ended` `[N]` bool.

    Gymnasium's own vector envs give `[N]` objects, each an observation or None;
    native ones also give observations batched like those of `step`.

    Raises:
      EnvFailure: an episode ended without a final observation, or with one that
        breaks the space.
    """
    final = info.get("final_obs")
    if final is None:
        raise _no_final(label, ended)
    one_by_one = isinstance(final, np.ndarray) and final.dtype.kind == "O"
    if not one_by_one:
        return encoder.encode(final, len(ended))[ended]
    rows = list(final[ended])
    if any(row is None for row in rows):
        raise _no_final(label, ended)
    try:
        empty: Any = create_empty_array(space, len(rows))
        batch = concatenate(space, rows, empty)
    except Exception as error:
        change = next(filter(None, map(encoder.explain, rows)), None)
        if change is not None:
            raise errors.EnvFailure(f"environment {label!r} {change} in step") from error
        raise env_error(label, "step", error) from error
    return encoder.encode(batch, len(rows))


def _no_final(label: str, ended: np.ndarray) -> errors.EnvFailure:
    return errors.EnvFailure(
        f"environment {label!r} resets in the same step but gave no info['final_obs'] "
        f"(env {np.flatnonzero(ended)[0]}): how the episode ended is not known"
    )
