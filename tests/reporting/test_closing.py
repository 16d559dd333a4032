"""What stands on the terminal when a run is over."""

from __future__ import annotations

import io
import math

from rich.console import Console

from distdqn.reporting.closing import print_summary


def console(width: int = 200) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_goes_to_stderr(capsys):
    print_summary({}, "runs/one")
    out, err = capsys.readouterr()
    assert out == "" and "runs/one" in err


def test_the_summary_names_the_figures_and_where_to_look(tmp_path):
    folder = tmp_path / "CartPole-v1-20260102-030405"
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / "best_0.mp4").touch()
    (folder / "learning_curve.png").touch()
    output = console(width=200)
    summary = {
        "stopped_by": "total_env_steps",
        "wall_s": 26.13,
        "startup_s": 3.2,
        "best_eval_return_mean": 500.0,
        "eval_return_mean": 487.25,
        "eval_return_std": 20.0,
        "eval_episodes": 100,
        "env_steps": 500_000,
        "gradient_steps": 49_000,
        "samples_per_insert": 12.8,
        "learner_wait_fraction": 0.02,
        "bottleneck": "learner",
        "verdict": "learner 97 percent busy; 2 workers would do",
        "env_steps_per_s": None,
        "gradient_steps_per_s": math.nan,
        "q_start_mean": 98.64,
        "return_start_mean": 97.21,
        "q_abs_max": 99.5,
        "q_bound": None,
    }
    print_summary(summary, folder, output)
    text = shown(output)
    for expected in (
        "total_env_steps after 26.1 s (3.2 s to start)",
        "500.0, mean return of 100 fresh greedy episodes",
        "487.2, standard deviation 20.0",
        "500,000 env steps, 49,000 updates, 12.80 samples per insert",
        "- env steps/s, - updates/s; the learner waited 2%",
        "limit            learner 97 percent busy; 2 workers would do",
        "98.6 predicted at the start, discounted return then realised 97.2; "
        "largest |q| 99.5, bound -",
        f"{folder}/learning_curve.png",
        f"{folder}/videos/best_0.mp4",
        f"tensorboard --logdir {folder}",
        f"distdqn evaluate {folder} --video",
    ):
        assert expected in text


def test_the_summary_names_no_file_that_is_not_there(tmp_path):
    output = console(width=200)
    print_summary({}, tmp_path, output)
    assert "learning_curve" not in shown(output) and "mp4" not in shown(output)


def test_an_interrupted_run_says_how_to_go_on_and_leaves_out_what_it_has_not(tmp_path):
    summary = {"stopped_by": "SIGINT", "eval_episodes": 0, "env_steps": 512}
    weights_alone, resumable = console(width=200), console(width=200)

    print_summary(summary, tmp_path, weights_alone)
    print_summary(summary, tmp_path, resumable, resumable=True)

    assert "go on" not in shown(weights_alone)
    assert f"distdqn resume {tmp_path}" in shown(resumable)
    assert "best checkpoint" not in shown(resumable) and "512 env steps" in shown(resumable)
