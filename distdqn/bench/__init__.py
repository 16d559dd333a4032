"""Throughput benchmarks: `distdqn bench NAME`, and `python -m distdqn.bench.learner`.

Each measures beside what it measures the limit of it on this machine, in turn, and needs
no more than the part that it measures.

    replay, learner, broadcast,          the benchmarks: `Options`, `QUICK`, `run(options, say)`
    rollout, pipeline, scaling
    measure, host                        repeated timings; the machine
    result                               what was found, as values and JSON
    ratios                               two results against each other
    table, plot                          the same as tables and as one picture
    synthetic, children                  made-up experience; processes that answer questions
    option_values                        what the fields of `Options` may be
    bare_updates, alone                  the update alone; with it, a worker's acting alone
"""
