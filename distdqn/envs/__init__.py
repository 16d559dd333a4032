"""Gymnasium environments, seen as streams of transitions.

The only package that knows Gymnasium, and the only place where `terminated` and
`truncated` are told apart before they become a discount.

    describe.py      what a run must know before it starts; refuses what it cannot train on
    make.py          native vector env or single envs in series
    atari.py         ids of Atari games, and what env.atari.* decides
    atari_backends.py  ale-py's vector env, and Gymnasium's wrapper
    minatar.py       MinAtar games
    serial.py        single envs as one vector env
    observations.py  any supported space -> one stored array
    stacks.py        observations of several frames: spec and space
    actions.py       Discrete actions, action masks
    stepper.py       VectorStepper: reset, step -> Step, for every autoreset mode
    lives.py         lost lives as ends, FIRE at starts
    same_step.py     final observations where the reset hides them
    values.py        reward scaling; NaN and infinity
    failures.py      one-line messages
    tables.py        the whole env as arrays, for envs that expose their transition table
"""

from distdqn.envs.describe import EnvDescription, describe
from distdqn.envs.make import MakeEnv
from distdqn.envs.stepper import VectorStepper, make_stepper
from distdqn.envs.tables import TransitionTable, transition_table

__all__ = [
    "EnvDescription",
    "MakeEnv",
    "TransitionTable",
    "VectorStepper",
    "describe",
    "make_stepper",
    "transition_table",
]
