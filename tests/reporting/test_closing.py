"""What stands on the terminal when a run is over."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from distdqn.reporting import closing
from distdqn.reporting.closing import print_summary

SUMMARY = {
    "stopped_by": "total_env_steps",
    "wall_s": 26.13,
    "startup_s": 3.2,
    "train_s": 20.5,
    "best_eval_return_mean": 500.0,
    "best_eval_env_steps": 490_000,
    "chosen_eval_return_mean": 498.0,
    "eval_return_mean": 487.25,
    "eval_return_std": 20.0,
    "eval_episodes": 100,
    "env_steps": 500_000,
    "gradient_steps": 49_000,
    "samples_per_insert": 12.8,
    "samples_per_insert_set": 12.8,
    "error_band": 3_277.0,
    "learner_wait_fraction": 0.02,
    "bottleneck": "learner",
    "verdict": "learner 97 percent busy: 1,267 env steps/s, the cores could do 1,848; a GPU (at "
    "most 8,967 env steps/s, 7.1 times)",
    "verdict_detail": {"limit": "learner"},
    "env_steps_per_s": None,
    "gradient_steps_per_s": math.nan,
    "q_start_mean": 98.64,
    "return_start_mean": 97.21,
    "q_abs_max": 99.5,
    "q_bound": None,
}


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch):
    monkeypatch.setattr(closing, "typed", lambda name, module: name)


def shown(summary, folder, width=200, **others) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_summary(summary, folder, console, **others)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def finished(folder: Path) -> Path:
    """A folder with all that a run leaves."""
    for name in ("videos/best_0.mp4", "learning_curve.png", "best/manifest.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_it_goes_to_stderr(capsys):
    print_summary({}, "runs/one")
    out, err = capsys.readouterr()
    assert out == "" and "runs/one" in err


def test_the_summary_names_the_figures_and_where_to_look(tmp_path):
    folder = finished(tmp_path / "run")
    assert shown(SUMMARY, folder).splitlines() == [
        "",
        "run",
        "stopped by  total_env_steps",
        "time        0:26, of which 0:03 to start, 0:20 training, 0:02 final evaluation",
        "best        500.0, mean return of 100 fresh greedy episodes with the weights after "
        "490,000 env steps",
        "last        487.2, standard deviation 20.0",
        "values      98.6 predicted at the start, discounted return then realised 97.2; "
        "largest |q| 99.5, bound -",
        "work        500,000 env steps, 49,000 updates, 12.80 samples per insert (12.8, within "
        "3,277 samples)",
        "speed       - env steps/s, - updates/s, mean of the training; the learner waited 2%",
        "limit       while learning, learner 97 percent busy: 1,267 env steps/s, the cores could "
        "do 1,848; a GPU (at most 8,967 env steps/s, 7.1 times)",
        f"run folder  {folder}",
        f"plot        {folder}/learning_curve.png",
        f"video       {folder}/videos/best_0.mp4",
        f"curves      tensorboard --logdir {folder}",
        f"play        distdqn evaluate {folder} --video",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_lines_go_on_at_a_space_and_labels_stay_whole(monkeypatch, tmp_path, width):
    monkeypatch.chdir(tmp_path)
    lines = shown(SUMMARY, finished(Path("runs/CartPole-v1-20261128-032738")), width).splitlines()
    labels = [line[:12].strip() for line in lines[2:] if line[:12].strip()]
    assert " ".join(labels) == (
        "stopped by time best last values work speed limit run folder plot video curves play"
    )
    figures = lines[: next(i for i, line in enumerate(lines) if line.startswith("run folder"))]
    assert max(map(len, figures)) <= width
    told = [line[12:] for line in figures[figures.index(f"{'stopped by':12}total_env_steps") :]]
    assert " ".join(SUMMARY["verdict"].split()) in " ".join(told)


def test_what_is_to_be_copied_is_one_line_however_narrow(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    folder = finished(Path("runs/CartPole-v1-20261128-032738"))
    lines = shown(SUMMARY, folder, width=40).splitlines()
    assert "play        distdqn evaluate CartPole-v1-20261128-032738 --video" in lines
    assert f"curves      tensorboard --logdir {folder}" in lines


def test_a_limit_that_was_not_measured_is_told_as_that(tmp_path):
    verdict = "not measured (the run was too short: 0.6 s of updates, 1 s needed)"
    short = SUMMARY | {"verdict": verdict, "verdict_detail": {"limit": ""}}
    assert f"limit       {verdict}\n" in shown(short, tmp_path)


def test_a_run_that_was_broken_off_has_the_evaluation_that_chose_its_best(tmp_path):
    refused = {"the run ended first": 8_457, "a NaN": 3}
    stopped = SUMMARY | {"eval_episodes": 0, "transitions_refused_by": refused}
    stopped |= {"transitions_collected": 20_000, "error_band": None}
    text = shown(stopped, tmp_path)
    lines = text.splitlines()
    assert "best        498.0, mean return of the evaluation after 490,000 env steps" in lines
    assert lines[4].startswith("best")
    assert "last " not in text and "values " not in text
    assert "unlearned   8,457 transitions were still on their way: the run ended first" in text
    assert "refused     3 (a NaN) of 20,000 transitions" in text
    assert "12.80 samples per insert (12.8)\n" in text
    assert "best " not in shown(stopped | {"chosen_eval_return_mean": None}, tmp_path)


def test_the_summary_names_nothing_that_is_not_there(tmp_path):
    text = shown({}, tmp_path)
    for absent in ("learning_curve", "mp4", "evaluate", "nan"):
        assert absent not in text


def test_a_video_is_advised_only_where_the_run_could_make_one(tmp_path):
    folder = finished(tmp_path)
    (folder / "videos" / "best_0.mp4").unlink()
    assert shown(SUMMARY, folder).endswith(f"distdqn evaluate {folder}\n")


def test_a_run_made_with_functions_is_played_and_resumed_from_python(tmp_path):
    folder = finished(tmp_path)
    stopped = SUMMARY | {"stopped_by": "SIGINT", "made_with": ["make_env", "make_network"]}
    text = shown(stopped, folder, resumable=True)
    functions = "make_env=..., make_network=..."
    assert f"play        in Python, distdqn.evaluate('{folder}', {functions})\n" in text
    assert f"go on       in Python, distdqn.resume('{folder}', {functions})\n" in text


def test_a_name_with_a_space_is_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = shown(SUMMARY, finished(Path("runs/my run")))
    assert "distdqn evaluate 'my run' --video" in text
    assert "tensorboard --logdir 'runs/my run'" in text


def test_an_interrupted_run_says_how_to_go_on_and_leaves_out_what_it_has_not(tmp_path):
    summary = {"stopped_by": "SIGINT", "eval_episodes": 0, "env_steps": 512}
    weights_alone, resumable = shown(summary, tmp_path), shown(summary, tmp_path, resumable=True)
    assert "go on" not in weights_alone
    assert f"distdqn resume {tmp_path}" in resumable
    assert "best" not in resumable and "512 env steps" in resumable


def test_what_was_replaced_is_counted_with_where_the_causes_stand(tmp_path):
    folder = finished(tmp_path)
    assert "restarts" not in shown(SUMMARY, folder)
    (folder / "errors.log").touch()
    text = " ".join(shown(SUMMARY | {"worker_restarts": 7, "shard_restarts": 1}, folder).split())
    assert f"restarts workers 7, shards 1; see {folder / 'errors.log'}" in text
