"""Processes that a machine cannot hold are refused before anything starts."""

import re

import pytest
from run_parts import small

import distdqn
from distdqn.errors import ResourceError
from distdqn.run import start_budget
from distdqn.run.start_budget import check_start_fits, has_own_ray
from distdqn.run.start_budget import start_budget as budget_of

GB = 2**30


@pytest.fixture
def machine(apart, monkeypatch):
    """Sets what is free here: bytes, and threads that a limit allows."""

    def set_free(memory=10**15, threads=10**9, swap=0):
        monkeypatch.setattr(start_budget, "free_memory", lambda: memory)
        monkeypatch.setattr(start_budget, "free_swap", lambda: swap)
        monkeypatch.setattr(start_budget, "free_threads", lambda: (threads, "ulimit -u"))

    return set_free


def way_out(config, replay_bytes=0):
    """The flag and the value that the refusal names; its whole line too."""
    with pytest.raises(ResourceError) as refused:
        check_start_fits(config, replay_bytes)
    line = str(refused.value)
    assert "\n" not in line
    flag, value = re.search(r"lower --([\w.]+) to about ([\d,]+)", line).groups()
    return flag.replace(".", "__"), int(value.replace(",", "")), line


@pytest.mark.parametrize("mode", ["async", "lockstep_ray"])
@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({"workers__count": 100_000}, {"memory": 16 * GB}),
        ({"workers__count": 100_000}, {"threads": 30_000}),
        ({"workers__count": 100_000}, {"memory": 16 * GB, "threads": 30_000}),
        ({"workers__count": 1, "replay__shards": 60}, {"memory": 4 * GB}),
    ],
)
def test_the_count_that_a_refusal_names_fits(tmp_path, machine, mode, changes, free):
    machine(**free)
    changes = {"mode": mode, **changes}

    flag, value, line = way_out(small(tmp_path, **changes))

    assert 1 <= value < changes[flag]
    assert f"{changes['workers__count']:,}" in line
    check_start_fits(small(tmp_path, **{**changes, flag: value}), 0)


def test_a_replay_that_fits_alone_is_refused_with_its_processes(tmp_path, machine):
    machine(memory=20 * GB)
    config = small(tmp_path, workers__count=10)

    check_start_fits(config, 10 * GB)
    with pytest.raises(ResourceError) as refused:
        check_start_fits(config, 19 * GB)

    line = str(refused.value)
    assert "beside 19.0 GiB of replay where 20.0 GiB are free, swap included" in line
    capacity = int(re.search(r"--replay.capacity to about ([\d,]+)", line)[1].replace(",", ""))
    check_start_fits(config, int(19 * GB * capacity / config.replay.capacity))


def test_where_nothing_smaller_fits_the_way_out_is_another_machine(tmp_path, machine):
    machine(memory=10**8)
    with pytest.raises(ResourceError, match="end other programs, or join a cluster"):
        check_start_fits(small(tmp_path), 0)


def test_a_run_that_is_too_large_leaves_no_folder(tmp_path, machine):
    machine(memory=16 * GB, threads=30_000)
    with pytest.raises(ResourceError, match=r"workers\.count 100,000 .*--workers\.count to about"):
        distdqn.train(small(tmp_path, workers__count=100_000), display=False)
    assert not (tmp_path / "runs").exists()


def test_a_cluster_is_not_budgeted_nor_a_run_in_one_process(tmp_path, machine, monkeypatch):
    machine()
    assert has_own_ray(small(tmp_path))
    assert has_own_ray(small(tmp_path, address="local"))
    assert not has_own_ray(small(tmp_path, address="auto"))
    assert not has_own_ray(small(tmp_path, mode="lockstep"))
    monkeypatch.setattr("distdqn.machine.joined.has_joined_ray", lambda: True)
    assert not has_own_ray(small(tmp_path))
    monkeypatch.setattr("distdqn.machine.joined.has_joined_ray", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert not has_own_ray(small(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert has_own_ray(small(tmp_path))


def test_a_small_machine_with_swap_is_not_refused(tmp_path, machine):
    machine(memory=GB // 2)
    with pytest.raises(ResourceError):
        check_start_fits(small(tmp_path), 0)

    machine(memory=GB // 2, swap=GB)
    check_start_fits(small(tmp_path), 0)


def test_the_budget_is_one_line(tmp_path, machine):
    machine(memory=16 * GB)
    budget = budget_of(small(tmp_path, workers__count=4, replay__shards=2), GB)

    assert budget.processes == 8 + 2 + (4 + 2) + 2  # Ray; control, weights; torch; shards
    assert budget.in_all == budget.process_bytes + GB
    assert budget.line().startswith("18 processes with about ")
    assert budget.line().endswith("16.0 GiB are free, swap included")
