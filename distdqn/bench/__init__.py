"""Throughput benchmarks: `python -m distdqn.bench.learner`.

Each needs no more than the part that it measures.
"""
