"""Throughput benchmarks: `distdqn bench NAME`, and `python -m distdqn.bench.learner`.

Each measures beside what it measures the limit of it on this machine, in turn, and needs
no more than the part that it measures.

    replay, learner, broadcast,          the benchmarks: `Options`, `QUICK`, `run(options, say)`
    rollout, pipeline, scaling
    live_run                             a whole run and what it spent, for pipeline and scaling
    measure                              repeated timings
    result                               what was asked and found on which machine, as JSON too
    show                                 the same as tables, as one picture, against another
    synthetic, children                  made-up experience; processes that answer questions
    alone                                the update and a worker's acting, each by itself
"""
