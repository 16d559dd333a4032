"""Three Ray nodes on one machine; one of them dies."""

import time

import pytest
import ray_parts  # noqa: F401  (pickled by value, see conftest)
from ray_parts import nodes_of_actors
from run_parts import assert_closed, in_thread, small, wait_for_control


@pytest.fixture
def three_nodes(ray_cluster):
    """Two more nodes beside the head; whatever is left of them goes afterwards."""
    added = [ray_cluster.add_node(num_cpus=4) for _ in range(2)]
    ray_cluster.wait_for_nodes(timeout=300)
    yield ray_cluster, added
    for node in added:
        if node in ray_cluster.worker_nodes:
            ray_cluster.remove_node(node)


@pytest.mark.timeout(1200)
def test_a_dead_node_costs_its_items_and_nothing_else(three_nodes, tmp_path):
    import ray

    cluster, added = three_nodes
    config = small(
        tmp_path,
        total_env_steps=120_000,
        workers__count=6,
        workers__num_cpus=1.0,
        replay__shards=3,
        replay__capacity=12_000,
        learner__superbatch=16,
        learner__batch_size=128,
        eval__period_env_steps=None,
    )
    thread, outcome = in_thread(config)

    wait_for_control(env_steps=5_000)
    here = ray.get_runtime_context().get_node_id()
    placed = {name: nodes_of_actors(name) for name in ("EnvWorker", "ReplayShard", "LearnerActor")}
    assert placed["LearnerActor"] == [here]
    assert len(set(placed["EnvWorker"])) == 3
    assert len(set(placed["ReplayShard"])) == 3
    victim = added[0]
    lost_workers = placed["EnvWorker"].count(victim.node_id)
    assert lost_workers >= 1
    cluster.remove_node(victim, allow_graceful=False)
    thread.join(timeout=900)  # a fast machine takes 20
    summary = outcome.get("summary") or outcome["error"]
    assert summary.env_steps == 120_000
    assert summary.worker_restarts >= lost_workers  # one may be sent to the dead node once more
    assert summary.shard_restarts == 1
    assert summary.items_lost > 0
    assert len(summary.shard_items) == 3
    assert min(summary.shard_items) > 0
    assert summary.gradient_steps > 0
    assert_closed(summary)


def test_what_asks_for_no_cpu_is_placed_and_never_left_to_chance(three_nodes, tmp_path):
    import ray

    from distdqn.run.factory import make_factory
    from distdqn.run.placement import Placement

    here = ray.get_runtime_context().get_node_id()
    others = sorted(node.node_id for node in three_nodes[1])
    place = Placement(make_factory(small(tmp_path, replay__shards=3)), "placed")
    made = [place.create("evaluator", 0, 0) for _ in range(3)]
    made += [place.create("shard", shard, epoch) for shard in range(3) for epoch in (0, 1)]
    try:
        ray.get([actor.__ray_ready__.remote() for actor in made], timeout=300)
        assert nodes_of_actors("Evaluator") == [here] * 3
        assert sorted(nodes_of_actors("ReplayShard")) == sorted(2 * [here, *others])
    finally:
        for actor in (*made, place.control, place.server):
            ray.kill(actor)


def test_a_run_leaves_the_cluster_clean(ray_cluster, tmp_path):
    import distdqn

    distdqn.train(small(tmp_path, total_env_steps=2_000), display=False)
    deadline = time.monotonic() + 300
    names = ("EnvWorker", "ReplayShard", "LearnerActor", "Evaluator", "Control", "WeightServer")
    while any(nodes_of_actors(name) for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.2)
