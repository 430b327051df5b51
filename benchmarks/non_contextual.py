"""One Gaussian, no network: the methods and cases of A.1 of the Trustable paper.

Mean and covariance are fitted to fresh samples, 8 minibatches of 128 an iteration. ``KL@k`` is
KL(truth ‖ fit) in nats after k iterations, the median over ten instances. ``to 0.1`` is after how
many iterations it is first below that, the median over those instances where it ever is; their
share stands beside it. A fit has diverged once it leaves float64, be it before a projection.

The paper's own figures of this study are not in its text. What differs from what is:

- The small variance of the 1-D cases is the text's 0.01, not Table 4's 0.1. Initial eigenvalues
  in Case III are 100 · Beta(8, 0.5), and Case IV mixes those of II and III.
- ``square root`` is the Cholesky factor, ``logarithm`` the symmetric matrix logarithm. The
  second-order methods change the root L to L(I + X) or to L exp(X), X in local coordinates.
- The natural gradient has the Fisher information in closed form; the paper estimates it from the
  minibatch. Its steps always have the KL of their bound, so it comes no nearer to the truth.
- Gauss-Newton's Hessian is the minibatch's own and may be indefinite, as the paper's, but it is
  taken by X, not by Σ.
- Tractable natural gradients have the covariance's exact Fisher information, by the paper's
  M = 2X half the identity, where the paper has the identity; and the exponential of what grows is
  taken to second order.
- The mean's bound is of the same Mahalanobis distance with all three metrics. Parameters are set
  to their projections, which makes the first of Trustable's two projections idle.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.gaussian_fits.cases import multivariate_cases, univariate_cases
from benchmarks.gaussian_fits.figures import draw_kl, draw_trajectories
from benchmarks.gaussian_fits.study import MULTIVARIATE, UNIVARIATE, Key, Trace, run_study
from benchmarks.report import (
    command_line,
    markdown_table,
    print_figures,
    run_command,
    write_results,
)

ITERATIONS = {"small": 200, "paper": 400}
INSTANCES = 10
LEVELS = 0.1, 0.01
MOMENTS = 1, 10, 50


def table(traces: Mapping[Key, Trace]) -> str:
    """Return one case's table, a row for each method and parametrisation."""
    last = len(next(iter(traces.values())).kl) - 1
    moments = [*(moment for moment in MOMENTS if moment < last), last]
    header = ["method", *(f"KL@{moment}" for moment in moments)]
    for level in LEVELS:
        header += [f"to {level:g}", "share"]
    rows = []
    for key, trace in traces.items():
        row = [", ".join(key), *(_median_kl(trace, moment) for moment in moments)]
        for level in LEVELS:
            iterations = trace.iterations_to(level)
            reached = iterations[iterations.isfinite()]
            row.append(f"{reached.median():.0f}" if len(reached) else "")
            row.append(f"{len(reached) / len(iterations):.0%}")
        rows.append(row)
    return markdown_table(header, rows)


def _median_kl(trace: Trace, moment: int) -> str:
    finite = trace.kl[moment].isfinite()
    diverged = f"{int((~finite).sum())} of {len(finite)} diverged"
    if finite.all():
        return f"{trace.median_kl[moment]:.2g}"
    if trace.median_kl[moment].isfinite():
        return f"{trace.median_kl[moment]:.2g} ({diverged})"
    return diverged


def figures(case: str, traces: Mapping[Key, Trace]) -> dict[str, float]:
    """Return each fit's last median KL and the share of instances that got below 0.01."""
    measured = {}
    for key, trace in traces.items():
        name = " ".join((case, *key)).lower().replace(" ", "_")
        measured[f"{name}_kl"] = float(trace.median_kl[-1])
        share = trace.iterations_to(LEVELS[-1]).isfinite().double().mean()
        measured[f"{name}_converged"] = float(share)
    return measured


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    iterations = ITERATIONS[arguments.budget]
    problems = {
        "1-D": (univariate_cases(INSTANCES), UNIVARIATE),
        "10-D": (multivariate_cases(INSTANCES, arguments.seed), MULTIVARIATE),
    }
    sections: list[str] = []
    measured: dict[str, float] = {}
    for title, (cases, bounds) in problems.items():
        traces = run_study(cases, bounds, iterations, arguments.seed, title)
        named = {f"{title} {case}": fits for case, fits in traces.items()}
        draw_kl(arguments.out / f"kl_{title}.png", named, LEVELS)
        for name, fits in named.items():
            sections.append(f"## {name}\n\n{table(fits)}")
            print(f"{sections[-1]}\n", flush=True)
            measured |= figures(name, fits)
        if title == "1-D":
            for case, fits in traces.items():
                path = arguments.out / f"trajectories_{title}_{case}.png"
                draw_trajectories(path, cases[case], fits)
    write_results(
        arguments.results or arguments.out / "non_contextual.md",
        "One Gaussian without a network: the methods of A.1 of the Trustable paper",
        command_line("non_contextual", arguments),
        arguments.seed,
        "\n\n".join([(__doc__ or "").split("\n\n", 1)[1].strip(), *sections]),
    )
    print_figures("non_contextual", measured)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--budget", choices=ITERATIONS, default="small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-results/non-contextual"), help="of the figures"
    )
    parser.add_argument("--results", type=Path, help="the Markdown file to write")
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
