"""The comparison with others: choice of the best, equal work, tables, and what is kept."""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
from pathlib import Path

import cartpole
import cartpole_sides
import cartpole_task
import cleanrl_dqn
import comparison
import environments
import pytest
import replay_buffers
from comparison import PeerError

COMPARE = Path(__file__).parents[2] / "benchmarks" / "compare"


def row(**fields):
    return {
        "wall_s": 10.0,
        "env_steps": 500_000,
        "gradient_steps": 49_000,
        "env_steps_per_s": 4_000.0,
        "train_return_mean": 200.0,
        "eval_return_mean": 500.0,
        "versions": {"peer": "1.0"},
        **fields,
    }


def pair(ours_s, theirs_s):
    return {
        "ours": row(wall_s=ours_s, env_steps_per_s=20_000.0),
        "theirs": row(wall_s=theirs_s),
    }


def entry(**fields):
    measured = cartpole.summary([pair(20, 100), pair(40, 120), pair(25, 125)])
    chosen = {"flags": ["--envs", "8"], "threads": 2, "env_steps_per_s": 4_000.0}
    stamp = {
        "created": "2026-01-02T03:04:05+00:00",
        "machine": {
            **{"cpu": "a processor", "cores": 2, "python": "3.11.7", "distdqn": "0.1.0"},
            **{"torch": "2.13.0", "ray": "2.60.0", "numpy": "2.4.6"},
        },
    }
    return {**stamp, "steps": 500_000, "chosen": chosen, **measured, **fields}


class FakeClock:
    """`time.perf_counter` that is told what it says."""

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        monkeypatch.setattr(cartpole_task.time, "perf_counter", lambda: self.now_s)


# Equal work.


def test_the_speed_counts_updates_between_the_first_one_and_the_end(monkeypatch):
    time = FakeClock(monkeypatch)
    clock = cartpole_task.LearningClock()
    clock.learned(0)
    time.now_s = 100.0
    clock.learned(10)
    time.now_s = 150.0
    clock.learned(200)
    time.now_s = 200.0
    clock.stop(410)
    assert clock.env_steps_per_s == 10 * (410 - 10) / (200 - 100)


def test_a_run_without_an_update_has_no_speed():
    with pytest.raises(SystemExit, match="before its first update"):
        cartpole_task.LearningClock().stop(0)


@pytest.mark.parametrize("name", ["env_steps", "gradient_steps"])
def test_sides_with_different_work_are_refused(name):
    ours = row()
    cartpole.check_equal_work(ours, row(**{name: round(1.049 * ours[name])}))
    with pytest.raises(PeerError, match=f"not the same work: {name}"):
        cartpole.check_equal_work(ours, row(**{name: round(1.051 * ours[name])}))


def test_our_flags_cut_the_experiment_and_its_exploration():
    flags = cartpole_sides.ours_flags(60_000)
    assert flags[flags.index("--total-env-steps") + 1] == "60000"
    assert flags[flags.index("--workers.epsilon.value") + 1] == "1.0:0.05:30000"


def test_our_preset_has_the_settings_of_the_peers():
    from distdqn.config import load_config

    presets = Path(__file__).parents[2] / "distdqn" / "presets"
    config = load_config(presets / "cartpole-cleanrl.yaml")
    assert config.env.id == cartpole_task.ENV_ID
    assert config.learner.batch_size == cartpole_task.BATCH_SIZE
    assert list(config.network.hidden) == cartpole_task.HIDDEN
    assert config.replay.capacity == cartpole_task.CAPACITY
    assert config.replay.min_size_to_sample == cartpole_task.LEARNING_STARTS
    per_update = cartpole_task.STEPS_PER_UPDATE
    assert config.replay.samples_per_insert == cartpole_task.BATCH_SIZE / per_update
    assert config.learner.target_period == cartpole_task.TARGET_PERIOD / per_update
    assert config.learner.discount == cartpole_task.DISCOUNT
    assert config.learner.learning_rate.at(0) == cartpole_task.LEARNING_RATE


# Reading what the sides print.


def test_a_peers_own_greedy_episodes_cost_it_no_time():
    printed = "a warning\n\n" + json.dumps(row(evaluation_s=2.5)) + "\n"
    read = cartpole_sides.peer_row(printed, seconds=12.5, seed=3)
    assert (read["seed"], read["gradient_steps"]) == (3, 49_000)
    assert json.loads(printed.splitlines()[-1])["wall_s"] == read["wall_s"] == 10.0


def test_our_speed_is_that_of_the_updates():
    summary = {
        **dict(seed=1, env_steps=500_000, gradient_steps=49_000, train_return_mean=1.0),
        **dict(eval_return_mean=2.0, eval_episodes=100, compiled=True, bottleneck="learner"),
        **dict(best_eval_return_mean=3.0, gradient_steps_per_s=2_000.0, env_steps_per_s=1.0),
    }
    read = cartpole_sides.ours_row(summary, seconds=24.0)
    assert (read["wall_s"], read["env_steps_per_s"]) == (24.0, 10 * 2_000.0)


def test_cleanrls_lines_give_its_returns_and_start_the_clock(monkeypatch, capsys):
    time = FakeClock(monkeypatch)
    recorder = cleanrl_dqn.Recorder()
    recorder("global_step=41, episodic_return=[42.]")
    recorder("global_step=99, episodic_return=9.5")
    time.now_s = 5.0
    recorder("SPS:", 1234)
    time.now_s = 15.0
    recorder.clock.stop(110)
    assert recorder.returns == [42.0, 9.5]
    assert recorder.clock.env_steps_per_s == 10 * (110 - 9) / 10.0
    assert capsys.readouterr().out.splitlines()[-1] == "SPS: 1234"


def test_greedy_episodes_are_played_to_their_end():
    def push_right(obs):
        assert obs.shape[1:] == (4,)
        return [1] * len(obs)

    returns, _ = cartpole_task.play(push_right, seed=5)
    assert len(returns) == cartpole_task.EPISODES
    assert all(8 <= value <= 12 for value in returns)  # what falling to one side lasts


# Choosing a peer's best.


def test_the_best_variant_is_tried_with_two_threads(monkeypatch):
    speeds = {("1", 1): 100.0, ("8", 1): 300.0, ("8", 2): 250.0}
    monkeypatch.setattr(
        cartpole,
        "run_peer",
        lambda peer, flags, steps, seed, threads, places: (
            row(env_steps_per_s=speeds[flags[1], threads]),
            "",
        ),
    )
    peer = cartpole_sides.Peer("sb3", "sb3_dqn.py", 1, 1, (("--envs", "1"), ("--envs", "8")))
    tried = cartpole.choose(peer, argparse.Namespace(trial_steps=None), {})
    assert [(t["flags"][1], t["threads"]) for t in tried] == [("1", 1), ("8", 1), ("8", 2)]
    chosen = cartpole.best(tried)
    assert (chosen["flags"], chosen["threads"]) == (["--envs", "8"], 1)


def test_a_replays_threads_are_those_with_the_lowest_median():
    assert replay_buffers.fastest({1: [10, 11, 90], 2: [12, 12, 12]}) == 1


def test_threads_are_held_for_every_library():
    one, two = cartpole_sides.environment(1), cartpole_sides.environment(2)
    assert (one["OMP_NUM_THREADS"], two["MKL_NUM_THREADS"]) == ("1", "2")
    assert one["XLA_FLAGS"].endswith("=false") and two["XLA_FLAGS"].endswith("=true")


def test_a_missing_environment_is_named(tmp_path):
    peer = cartpole_sides.PEERS["sb3"]
    with pytest.raises(PeerError, match=r"no environment sb3 in .*: build it first"):
        cartpole_sides.run_peer(peer, (), 1, 1, 1, {"VENVS": tmp_path})


# Tables.


def test_ratios_are_taken_round_by_round():
    measured = entry()
    assert measured["wall_ratio"] == {"median": 5.0, "min": 3.0, "max": 5.0}
    assert measured["speed_ratio"]["median"] == 20_000 / 4_000
    assert measured["ours"]["wall_s"] == {"median": 25.0, "min": 20.0, "max": 40.0}


def test_the_table_has_both_sides_and_their_returns():
    text = cartpole.table({"sb3": entry()})
    line = next(line for line in text.splitlines() if line.startswith("| sb3"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "sb3, --envs 8, 2 threads",
        *("500,000", "49,000 (49,000)"),
        *("25 (20 to 40)", "120 (100 to 125)", "5 (3 to 5)"),
        *("20,000", "4,000", "5", "500 (500)"),
    ]
    assert "2 cores of a processor" in text and "theirs peer 1.0" in text


def test_the_replay_table_says_what_is_uniform():
    times = {
        "distdqn": {work: [100.0, 200.0] for work in replay_buffers.WORKS},
        "sb3": {work: [300.0, 400.0] for work in replay_buffers.WORKS},
    }
    about = {"items": 1_000, "prioritized": False, "versions": {"peer": "1.0"}}
    measured = replay_buffers.entry(times, "sb3", about)
    assert measured["ratio"]["add"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    text = replay_buffers.table({"sb3": entry(**measured, threads=1)})
    assert "| sb3 (uniform, samples only) | 1 | 150 (100 to 200) | 350 (300 to 400) |" in text


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1,234"), (99.6, "99.6"), (0.01234, "0.0123"), (None, "-")]
)
def test_numbers_are_short(value, shown):
    assert comparison.short(value) == shown


# What is kept.


def test_a_peer_measured_later_joins_the_others(tmp_path):
    def write(entries):
        return comparison.write(tmp_path, "cartpole", entries, cartpole.table, cartpole.draw)

    write({"sb3": entry(), "rllib": entry()})
    text = write({"rllib": entry(steps=777)})
    kept = json.loads((tmp_path / "cartpole.json").read_text())["peers"]
    assert {name: peer["steps"] for name, peer in kept.items()} == {"sb3": 500_000, "rllib": 777}
    assert text == (tmp_path / "cartpole.md").read_text()
    assert (tmp_path / "cartpole.png").read_bytes().startswith(b"\x89PNG")


def test_another_files_results_are_not_overwritten(tmp_path):
    path = tmp_path / "cartpole.json"
    path.write_text('{"format": 1, "comparison": "replay", "peers": {}}')
    with pytest.raises(SystemExit, match="is no comparison 'cartpole' of format 1"):
        comparison.merged(path, "cartpole", {})


def test_outputs_name_neither_places_nor_the_host(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison.socket, "gethostname", lambda: "box")
    places = {"VENVS": Path("/some/where/venvs"), "FOLDER": Path("/some/where")}
    said = "/some/where/venvs/sb3 /some/where/else on box, not boxed"
    name = comparison.keep_output(tmp_path, "cartpole", "sb3", said, places)
    assert (tmp_path / name).read_text() == "VENVS/sb3 FOLDER/else on HOST, not boxed"


def test_a_large_output_is_kept_compressed_and_whole(tmp_path):
    comparison.keep_output(tmp_path, "cartpole", "sb3", "short", {})
    said = "SPS: 1234\n" * 10_000
    name = comparison.keep_output(tmp_path, "cartpole", "sb3", said, {})
    assert gzip.decompress((tmp_path / name).read_bytes()).decode() == said
    assert [path.name for path in (tmp_path / "output").iterdir()] == [Path(name).name]


# Environments, and the processes that time themselves.


def test_every_peer_has_its_requirements_pinned():
    needed = {peer.environment for peer in cartpole_sides.PEERS.values()}
    assert needed | set(replay_buffers.PEERS) == set(environments.peers())
    for path in environments.REQUIREMENTS.glob("*.txt"):
        lines = [x for x in path.read_text().splitlines() if x and not x.startswith("#")]
        assert lines and all("==" in line for line in lines)


def test_building_says_in_one_line_what_failed(tmp_path, monkeypatch):
    requirements = tmp_path / "requirements"
    requirements.mkdir()
    (requirements / "none.txt").write_text("./there-is-no-such-folder\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", requirements)
    python = environments.python_of(tmp_path, "none")
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    failure = environments.build(tmp_path, "none")
    assert failure.startswith("none: ERROR") and "\n" not in failure
    assert "there-is-no-such-folder" in (tmp_path / "none.log").read_text()


def test_an_unknown_peer_is_refused_with_the_known_ones():
    script = [sys.executable, str(COMPARE / "environments.py"), "--into", "x", "nonsense"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 2 and "nonsense: there are cleanrl, " in done.stderr


def test_a_filled_replay_times_itself_on_request():
    child = replay_buffers.Child("distdqn", sys.executable, 2_000, 1)
    try:
        assert child.about["items"] == 2_000
        times = replay_buffers.in_turn({"distdqn": child}, rounds=2, seconds=0.01)
    finally:
        child.close()
    assert all(len(slots) == 2 and min(slots) > 0 for slots in times["distdqn"].values())


def test_a_side_that_ends_before_its_time_is_named():
    with pytest.raises(PeerError, match=r"ended with 2: .*invalid choice: 'nonsense'"):
        replay_buffers.Child("nonsense", sys.executable, 2_000, 1)


@pytest.mark.parametrize("text", ["nobody=1", "rllib", "rllib=many"])
def test_steps_of_an_unknown_peer_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="want PEER=STEPS"):
        cartpole.steps_of(text)
    assert cartpole.steps_of("rllib=30000") == ("rllib", 30_000)
