"""Learned values held against exact ones.

Where an environment exposes its transition table, what Q-learning should find can be
computed; this package computes it, trains by the ordinary `train`, and compares.

    exact            value iteration, reachable pairs, exact returns, value errors
    counterexamples  Baird, Tsitsiklis and Van Roy: exact sweeps
    plan             which runs, with which settings and bounds; the ablation of replay,
                     target network and double Q-learning
    verification     makes the runs and measures what they learned, from their folders
    result           what was found, as values, JSON, lines and tables of text
    figures, page    the same as pictures, and as one HTML page
"""
