"""What a run would start, and where, without starting it.

The same checks as at the start, as far as this machine can make them: of a cluster's nodes
nothing is known before it is joined.
"""

import math

from distdqn.config import Config
from distdqn.config.schedules import told
from distdqn.config.tree import resolved_error_band
from distdqn.machine.joined import RayChoice, which_ray
from distdqn.run.actors import asked_for, embedded_cpus, needed_cpus
from distdqn.run.factory import Factory


def plan(factory: Factory) -> dict[str, str]:
    """A line for each part, by its name; ConfigError for a network that cannot be made."""
    config, observation = factory.config, factory.observation
    choice = RayChoice("embedded") if config.mode == "lockstep" else which_ray(config.address)
    processes = factory.start_budget()
    shape = "x".join(map(str, observation.shape)) or "single"
    parts = {
        "env": f"{config.env.id}: {shape} {observation.dtype} observations, "
        f"{factory.num_actions} actions",
        "network": _network(factory),
        "learning": _learning(factory),
        "memory": factory.memory_budget().line(),
        **({"processes": processes.line()} if processes else {}),
        "device": _device(config, choice),
        "Ray": _ray(config, choice),
    }
    return parts if config.mode == "lockstep" else parts | _actors(config, choice)


def _network(factory: Factory) -> str:
    network = factory.network()
    size = sum(parameter.numel() for parameter in network.parameters())
    torso = "make_network()" if factory.make_network else f"torso {factory.config.network.torso}"
    return f"{torso}, {size:,} parameters"


def _learning(factory: Factory) -> str:
    """What is learned from how much; the updates of a run that nothing ends before."""
    config, every = factory.config, factory.config.eval.period_env_steps
    samples = factory.limiter().samples_owed(config.total_env_steps)
    batch_size, replay = config.learner.batch_size, config.replay
    explored = told(config.workers.epsilon.value.over(config.total_env_steps))
    if config.workers.epsilon.kind == "ladder":
        first, last = (factory.epsilons(i)(0) for i in (0, config.workers.count - 1))
        explored = f"{first[0]:g} in the first env to {last[-1]:.2g} in the last"
    band = f", within {resolved_error_band(config):,.0f} samples" * (config.mode == "async")
    return (
        f"{config.total_env_steps:,} env steps, epsilon {explored}; "
        f"{samples // batch_size:,} updates of {batch_size} transitions, "
        f"{replay.samples_per_insert:g} samples per insert{band}; "
        + (f"an evaluation every {every:,} env steps" if every else "no evaluation before the end")
    )


def _device(config: Config, choice: RayChoice) -> str:
    """Where the learner computes; of a cluster's nodes only what is asked for is known."""
    from distdqn.learning.staging import choose_device

    if choice.kind != "embedded":
        return f"{config.learner.device}, of the learner's node"
    return choose_device(config.learner.device).type


def _ray(config: Config, choice: RayChoice) -> str:
    if config.mode == "lockstep":
        return "none; mode lockstep is one process"
    if choice.kind != "embedded":
        source = " (RAY_ADDRESS)" if choice.from_shell else ""
        which = f"the cluster at {choice.address}{source}" if choice.address else "the caller's"
        needs = f"{needed_cpus(config):g} CPUs and {config.learner.num_gpus:g} GPUs"
        return f"{which}, which must have {needs} free"
    gpus = math.ceil(config.learner.num_gpus)
    return f"embedded on this machine, with {embedded_cpus(config)} CPUs and {gpus} GPUs declared"


def _actors(config: Config, choice: RayChoice) -> dict[str, str]:
    workers, asked = config.workers, asked_for(config)
    is_cluster = choice.kind != "embedded"
    is_free = config.learner.num_gpus or config.learner.resources
    of_learner = ", on any node" if is_free else ", on the driver's node"
    spread, in_turn, others = (
        (", spread over the nodes", ", on the nodes in turn", ", on the driver's node")
        if is_cluster
        else ("", "", "")
    )
    return {
        "env workers": f"{workers.count} of {workers.envs_per_worker} envs, "
        f"{_amounts(asked['worker'])} each{spread}",
        "replay shards": f"{config.replay.shards}{in_turn}",
        "learner": f"1, {_amounts(asked['learner'])}{of_learner if is_cluster else ''}",
        "others": f"control, weight server, evaluator{others}",
    }


def _amounts(asked: dict) -> str:
    named = {"CPU": asked["num_cpus"], "GPU": asked.get("num_gpus", 0), **asked["resources"]}
    return ", ".join(f"{amount:g} {name}" for name, amount in named.items() if amount) or "0 CPU"
