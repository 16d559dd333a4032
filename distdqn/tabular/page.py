"""A verification as one self-contained HTML page.

What each picture should show is said beside it, so that a reader can tell when it does not.
"""

import datetime
import html
from collections.abc import Mapping, Sequence

from distdqn.reporting.html_page import figure, page, table
from distdqn.tabular import figures
from distdqn.tabular.result import Result, Verification, ablation_rows, only, result_row
from distdqn.version import __version__

_ABOUT = """Each run below is an ordinary <code>distdqn train</code>; its folder stands beside this
page, and its <code>config.yaml</code> repeats it. The exact values q* are computed from the
environment's transition table by value iteration. Errors are over all reachable, non-terminal
pairs of state and action that the environment's action mask allows. Returns are exact too: the
expected undiscounted return of one episode of the greedy policy within the time limit, computed
from the table, not sampled. On FrozenLake that is the probability of success. The optimum is that
of the greedy policy of q*; since q* is discounted, another policy may return a little more."""

_VALUES = """Learned values against exact ones, a point for each pair; on the line they are equal.
The lighter a point, the more often the behaviour policy has visited the pair. Look for dark points
off the line: pairs that were hardly tried. With the residual gradient no amount of data brings the
points to the line where next states are random."""

_ERRORS = """The value error &Sigma; weight (q* - q)&sup2; of the weights in each checkpoint.
Solid: weighted by how often the behaviour policy of the whole run visited each pair; dashed: every
pair the same. Where the dashed line stays above the solid one, the error is left in pairs that are
rarely visited. A line that ends flat has reached what its data, or its gradient, allows."""

_RESIDUAL = """The semi-gradient holds the bootstrap target fixed; the residual gradient (Baird
1995) goes through the target too and descends the squared Bellman error of single transitions.
Where the next state is random that error has the variance of the target in it, which the residual
gradient lowers as well: it settles at values that are not q*. Where nothing is random it can settle
only at q*, but may be very slow on the way, as on Baird's star below: its squared error is then
badly conditioned. A row that is far off while its error above still falls has not arrived."""

_COUNTEREXAMPLES = """Exact sweeps, no sampling. Left, Baird's star (Sutton &amp; Barto 2018, figure
11.1; discount 0.99, step size 0.01): the semi-gradient diverges though the features can represent
the true values; a target network that is held only briefly delays it, one that is held until the
values are fitted bounds it, and the residual gradient converges, the last part very slowly. Right,
Tsitsiklis and Van Roy's w &rarr; 2w (example 11.1): every sweep is a perfect least-squares fit, and
still the weight is multiplied by 6/5 of the discount, so it diverges above 5/6."""

_ABLATION = """Lockstep runs, one line or point for each seed; all settings but the named ones are
the same. On CartPole as many transitions are learned from as are collected, with replay too. Left:
values of its first states; no policy is worth more than the dashed line, so what crosses it has
diverged. Top right: what its greedy policies earn, at most 500. Double Q-learning hardly changes a
value there: estimates that still grow are not yet too high. Bottom right, where it does: a table
whose step size stays large, so that its estimates stay noisy, and the exact value of the first
state. The maximum over noisy estimates is too high; double Q-learning selects with one estimate
and evaluates with another, and errs to the other side."""


def to_html(verification: Verification) -> str:
    """The page."""
    results, outcomes = verification.results, verification.outcomes
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    parts = [
        "<h1>Learned values against exact solutions</h1>",
        f'<p class="small">distdqn {__version__} verify, {when}, '
        f"{len(results) + len(outcomes)} runs in {verification.wall_s:.0f} s, "
        f"seed {results[0].config.seed}</p>",
        _verdict(verification),
        f"<p>{_ABOUT}</p>",
        _table([result_row(result) for result in results]),
        "<h2>q against q*</h2>",
        figure(figures.values_figure(results), _VALUES),
        "<h2>Value error over time</h2>",
        figure(figures.errors_figure(results), _ERRORS),
    ]
    if any(result.config.learner.gradient == "residual" for result in results):
        parts += ["<h2>Semi-gradient and residual gradient</h2>", _residual(results)]
    picture = figures.divergence_figure(verification.baird, verification.tsitsiklis_van_roy)
    parts += ["<h2>The deadly triad: counterexamples</h2>", figure(picture, _COUNTEREXAMPLES)]
    if outcomes:
        parts += [
            "<h2>The deadly triad: replay, target network, double Q-learning</h2>",
            figure(figures.ablation_figure(outcomes), _ABLATION),
            _table(ablation_rows(outcomes)),
            '<p class="small">Medians over the seeds, lowest to highest in brackets. Diverged: '
            "largest |q| above the largest possible value by more than 1 percent.</p>",
        ]
    return page("distdqn verify", parts)


def _verdict(verification: Verification) -> str:
    complaints = verification.complaints
    num_bounds = sum(len(result.planned.bounds) for result in verification.results)
    if complaints:
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in complaints)
        return f'<div class="verdict missed"><p><b>Not all holds.</b></p>{lines}</div>'
    bounds = f"All {num_bounds} stated bounds hold" if num_bounds else "No bound is stated"
    kind = "verdict" if num_bounds else "verdict open"
    return (
        f'<div class="{kind}"><p><b>{bounds}.</b> In every run the transitions collected are '
        "the sum of those accepted, refused and lost.</p></div>"
    )


def _residual(results: Sequence[Result]) -> str:
    """The problems that were learned with the residual gradient, with both where there are."""
    problems = {r.planned.problem for r in results if r.config.learner.gradient == "residual"}
    tables = [r for r in results if r.planned.problem in problems and not r.config.network.hidden]
    columns = ("problem", "learner", "max |q - q*|", "value error, uniform", "greedy return")
    return f"<p>{_RESIDUAL}</p>" + table(columns, only(columns, list(map(result_row, tables))))


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    return table(tuple(rows[0]), [tuple(row.values()) for row in rows])
