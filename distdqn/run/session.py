"""Opens Ray for a run, and says in the run's folder where it is."""

from __future__ import annotations

import math
from collections.abc import Callable

from distdqn.files.run_folder import RunFolder
from distdqn.run.factory import Parts
from distdqn.run.placement import embedded_cpus
from distdqn.run.ray_session import RaySession, check_gpu, connect


def open_session(parts: Parts, folder: RunFolder, say: Callable[[str], None]) -> RaySession:
    """Joins or starts a Ray that has what the run asks for.

    say: takes warnings.  Raises RunError or ResourceError, one line each.
    """
    config = parts.config
    session = connect(
        config.address,
        folder.name,
        embedded_cpus(parts),
        math.ceil(config.learner.num_gpus),  # whole ones, as Ray counts them
        folder.token_path,
    )
    for line in session.warnings:
        say(line)
    folder.set_running(session.address, session.namespace, session.token_file)
    try:
        check_gpu(config.learner.device, config.learner.num_gpus)
    except BaseException:
        session.close()
        raise
    return session
