"""Gymnasium environments, seen as streams of transitions.

The only package that knows Gymnasium, and the only place where `terminated` and
`truncated` are told apart before they become a discount.

    make.py          native vector env or single envs in series; the stepper over them; what
                     a run must know before it starts; the env without distdqn, for benchmarks
    registry.py      ids, and what Gymnasium has registered under them
    atari.py         what env.atari.* decides: ale-py's vector env, Gymnasium's wrapper
    minatar.py       MinAtar games
    serial.py        single envs as one vector env
    stepper.py       VectorStepper: reset, step -> Step, for every autoreset mode
    observations.py  any supported space -> one stored array; final observations
    actions.py       Discrete actions, action masks
    learner_view.py  reward scaling; lost lives as ends, FIRE at starts; NaN and infinity
    failures.py      one-line messages
    tables.py        the whole env as arrays, for envs that expose their transition table
"""
