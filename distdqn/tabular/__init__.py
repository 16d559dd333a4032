"""Learned values held against exact ones.

Where an environment exposes its transition table, what Q-learning should find can be
computed; this package computes it, trains by the ordinary `train`, and compares.

    exact            value iteration, reachable pairs, exact returns, value errors
    counterexamples  Baird, Tsitsiklis and Van Roy: exact sweeps
    result           what is planned and found, as values and JSON: the others' types
    plan             which runs, with which settings and bounds
    triad            the ablation of replay, target network and double Q-learning
    measure          what a run learned, from its folder
    verification     makes the runs
    rows             what was found as lines and tables of text
    figures, page    the same as pictures, and as one HTML page
"""
