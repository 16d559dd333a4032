"""distdqn beside other libraries' DQN on CartPole, at equal work.

    python benchmarks/compare/cartpole.py --venvs DIR --cleanrl CHECKOUT --repeats 2
    python benchmarks/compare/cartpole.py --venvs DIR --peers rllib --steps-of rllib=30000

Both sides do CleanRL's experiment: one MLP 120-84, batch 128, an update per 10 env steps
after 10,000 (12.8 samples per insert), the same number of env steps. DIR is what
`environments.py` has built. For each peer first its best variant, then its best of 1 and 2
threads, by short trials; then theirs and ours in turn, ours for as many env steps as theirs
made. `--peers` measures some alone and adds them to the JSON that is there.

Two speeds are compared. The wall clock is of whole processes: start-up is in it, and our
evaluations, but not the greedy episodes that a peer plays for its final return. Env steps
per second count while learning: a peer's from its first update to its last, ours from its
first report of any env step, so that our filling of the replay counts against us. Where a
slow peer gets fewer steps, start-up is most of our wall clock, and the second one is to be
looked at; a run of ours under some seconds understates it.

The final return is the mean of 100 greedy episodes with the last weights, on both sides.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cartpole_sides import PEERS, Peer, Row, ours_flags, run_ours, run_peer
from comparison import (
    Entry,
    PeerError,
    figure,
    keep_output,
    machine_lines,
    markdown,
    ratios,
    short,
    spread,
    stamped,
    write,
)

NAME = "cartpole"
_TOLERANCE, _SLACK = 0.05, 10  # of the counts of both sides: relative, and in units


def best(tried: Sequence[Row]) -> Row:
    """The trial with the most env steps per second."""
    return max(tried, key=lambda trial: trial["env_steps_per_s"])


def check_equal_work(ours: Row, theirs: Row) -> None:
    """Raises PeerError unless both sides made as many env steps and updates, to 5 percent.

    RLlib works in rounds and ends up to 4 percent short of updates in 30,000 env steps.
    """
    for name in ("env_steps", "gradient_steps"):
        bound = max(_TOLERANCE * ours[name], _SLACK)
        if abs(ours[name] - theirs[name]) > bound:
            raise PeerError(
                f"not the same work: {name} {theirs[name]:,}, ours {ours[name]:,}; "
                f"they may differ by {bound:,.0f}"
            )


def choose(peer: Peer, options: argparse.Namespace, places: dict[str, Path]) -> list[Row]:
    """The trials: every variant with one thread, then the best of them with two."""
    steps = options.trial_steps or peer.trial_steps

    def trial(flags: Sequence[str], threads: int) -> Row:
        row, _ = run_peer(peer, flags, steps, 0, threads, places)
        speed = row["env_steps_per_s"]
        say(f"  trial {' '.join(flags)} threads {threads}: {speed:,.0f} env steps/s")
        return {"flags": list(flags), "threads": threads, "steps": steps, "env_steps_per_s": speed}

    tried = [trial(flags, 1) for flags in peer.variants]
    return [*tried, trial(best(tried)["flags"], 2)]


def compare(name: str, options: argparse.Namespace, places: dict[str, Path]) -> Entry:
    """Both sides in turn; the entry of one peer."""
    peer = PEERS[name]
    steps = options.steps_of.get(name, options.steps or peer.steps)
    tried = choose(peer, options, places)
    chosen = best(tried)
    rounds: list[dict[str, Row]] = []
    outputs = []
    for seed in range(1, options.repeats + 1):
        theirs, text = run_peer(peer, chosen["flags"], steps, seed, chosen["threads"], places)
        ours = run_ours(theirs["env_steps"], seed)  # RLlib ends with the round that passes `steps`
        check_equal_work(ours, theirs)
        rounds.append({"ours": ours, "theirs": theirs})
        outputs.append(text)
        for side, row in rounds[-1].items():
            say(
                f"  seed {seed} {side}: {row['wall_s']:.1f} s, {row['env_steps_per_s']:,.0f} env "
                f"steps/s while learning, return {short(row['eval_return_mean'])}"
            )
    file = keep_output(options.out, NAME, name, "".join(outputs), places)
    entry = {"steps": steps, "ours_flags": ours_flags(steps), "tried": tried, "chosen": chosen}
    if peer.script == "cleanrl_dqn.py":
        entry["checkout"] = commit(places["CLEANRL"])
    return stamped({**entry, **summary(rounds), "output": file, "rounds": rounds})


def commit(checkout: Path) -> str | None:
    """Of a git checkout; None for another folder."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or None


def summary(rounds: Sequence[Mapping[str, Row]]) -> Entry:
    """Figures of both sides over the rounds, and how many times as fast ours is."""

    def values(side: str, name: str) -> list[float]:
        return [row[side][name] for row in rounds if row[side][name] is not None]

    names = ("wall_s", "env_steps_per_s", "gradient_steps", "eval_return_mean", "train_return_mean")
    return {
        **{
            side: {n: figure(values(side, n)) for n in names if values(side, n)}
            for side in ("ours", "theirs")
        },
        "wall_ratio": ratios(values("theirs", "wall_s"), values("ours", "wall_s")),
        "speed_ratio": ratios(
            values("ours", "env_steps_per_s"), values("theirs", "env_steps_per_s")
        ),
        "versions": rounds[0]["theirs"]["versions"],
    }


def table(entries: Mapping[str, Entry]) -> str:
    """Markdown: a row for each peer."""
    header = ["peer, its best", "env steps", "updates (theirs)", "ours, s", "theirs, s", "ratio"]
    header += ["ours, env steps/s", "theirs, env steps/s", "ratio", "return (theirs)"]
    rows = [_cells(peer, entry) for peer, entry in entries.items()]
    return (
        "# distdqn beside other libraries' DQN on CartPole\n\n"
        "Seconds are of the whole process; env steps per second count while learning; the "
        "return is the mean of 100 greedy episodes with the last weights. Medians, with "
        "smallest and largest; ratios above 1 where distdqn is faster. distdqn's compile cache "
        "was warm, JAX compiles in each process. Written by "
        "`benchmarks/compare/cartpole.py`, which says how it measures.\n\n"
        f"{markdown(header, rows)}\n{machine_lines(entries)}"
    )


def _cells(peer: str, entry: Entry) -> list[str]:
    ours, theirs, chosen = entry["ours"], entry["theirs"], entry["chosen"]
    threads = f"{chosen['threads']} thread{'s' * (chosen['threads'] > 1)}"
    counts = [f"{side['gradient_steps']['median']:,.0f}" for side in (ours, theirs)]
    returns = [
        spread(side["eval_return_mean"]) if "eval_return_mean" in side else "-"
        for side in (ours, theirs)
    ]
    return [
        ", ".join([peer, *([" ".join(chosen["flags"])] if chosen["flags"] else []), threads]),
        f"{entry['steps']:,}",
        f"{counts[0]} ({counts[1]})",
        *(spread(side["wall_s"]) for side in (ours, theirs)),
        spread(entry["wall_ratio"]),
        *(spread(side["env_steps_per_s"]) for side in (ours, theirs)),
        spread(entry["speed_ratio"]),
        f"{returns[0]} ({returns[1]})",
    ]


def draw(axes: Any, entries: Mapping[str, Entry]) -> None:
    """Env steps per second of both sides, from zero."""
    for place, (side, colour) in enumerate((("ours", "tab:blue"), ("theirs", "tab:orange"))):
        speeds = [entry[side]["env_steps_per_s"]["median"] for entry in entries.values()]
        rows = [index + 0.4 * place - 0.2 for index in range(len(entries))]
        label = "distdqn" if side == "ours" else "the other"
        axes.barh(rows, speeds, height=0.38, color=colour, label=label)
    for index, entry in enumerate(entries.values()):
        speed, ratio = entry["ours"]["env_steps_per_s"]["median"], entry["speed_ratio"]["median"]
        axes.text(speed, index - 0.2, f" {short(ratio, 2)} times", va="center", fontsize=8)
    names = [f"{peer}\n{entry['steps']:,} steps" for peer, entry in entries.items()]
    axes.set_yticks(range(len(entries)), names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("env steps per second while learning")
    axes.set_title("CartPole, batch 128, an update per 10 env steps")
    axes.legend(loc="lower right", fontsize=8)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def steps_of(text: str) -> tuple[str, int]:
    """`peer=steps`."""
    peer, _, steps = text.partition("=")
    if peer not in PEERS or not steps.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: want PEER=STEPS, PEER of {', '.join(PEERS)}")
    return peer, int(steps)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venvs", type=Path, required=True, help="the peers' environments")
    parser.add_argument("--cleanrl", type=Path, help="a checkout of CleanRL")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER")
    parser.add_argument("--steps", type=int, help="env steps (default: as each peer can bear)")
    parser.add_argument("--steps-of", type=steps_of, nargs="+", default=[], metavar="PEER=STEPS")
    parser.add_argument("--trial-steps", type=int, help="of the runs that choose a peer's best")
    parser.add_argument("--repeats", type=int, default=2, help="rounds of ours and theirs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.steps_of = dict(options.steps_of)
    return options


def main() -> None:
    options = parse_arguments()
    places = {"VENVS": options.venvs.absolute(), "REPOSITORY": Path(__file__).resolve().parents[2]}
    if options.cleanrl is not None:
        places["CLEANRL"] = options.cleanrl.absolute()
    say("ours, once, to fill the compile cache")
    run_ours(options.steps or 60_000, 0)
    failed, text = False, ""
    for name in options.peers:
        say(name)
        try:
            entry = compare(name, options, places)
        except PeerError as error:
            failed = True
            say(f"{name}: {error}")
            continue
        text = write(options.out, NAME, {name: entry}, table, draw)  # a later failure keeps it
    print(text, end="")
    sys.exit(failed)


if __name__ == "__main__":
    main()
