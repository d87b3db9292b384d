"""What was expected before anything was measured, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments._harness import Claim, Comparison, paired, text_table
from experiments.one_standard_error import measures
from experiments.one_standard_error.exact import Exact
from experiments.one_standard_error.measures import Bias
from experiments.one_standard_error.overlap import SCHEMES, Dependent
from experiments.one_standard_error.recurrent import Trained
from experiments.one_standard_error.ridge import RULES, Simulated

HERE = "this project, stated beforehand"
SKLEARN = "scikit-learn: Ridge, RidgeCV, GridSearchCV"
GLMNET = "Friedman, Hastie & Tibshirani 2010 (glmnet)"
ESL = "Hastie, Tibshirani & Friedman 2009, section 7.10"
BATES = "Bates, Hastie & Tibshirani 2023"
BENGIO = "Bengio & Grandvalet 2004"
VARMA = "Varma & Simon 2006"
CAWLEY = "Cawley & Talbot 2010"
BERGMEIR = "Bergmeir, Hyndman & Koo 2018"
LEAST, NESTED = "least mean", "nested"


class Found(NamedTuple):
    """Everything that was measured.

    Attributes:
      exact: what must be equal.
      rules: data sets where λ_min or λ_1se is not glmnet's, of how many, and the largest difference of cvsd.
      ridge: the tasks in closed form.
      trained: the networks.
      overlap: by horizon, by scheme of folds.
    """

    exact: Exact
    rules: tuple[int, int, float]
    ridge: Sequence[Simulated]
    trained: Trained
    overlap: Mapping[int, Mapping[str, Dependent]]


def comparisons(ridge: Sequence[Simulated], one: str, other: str) -> list[Comparison]:
    """By task, the regret of one rule less that of another, with Holm's correction; positive if the other is better."""
    found = [measures.regrets(each.refit, each.cv) for each in ridge]
    return paired([(each[one], each[other]) for each in found])


def claims_of(found: Found) -> list[Claim]:
    """Every claim beside what was measured."""
    return [*_exactness(found), *_intervals(found), *_optimism(found), *_rules(found), *_overlap(found)]


def _exactness(found: Found) -> list[Claim]:
    exact, (wrong, total, largest) = found.exact, found.rules
    words = {
        "readout of a linear recurrent network by L-BFGS and Ridge of its states: weights along λ": exact.weights,
        "… and the errors of five folds": exact.scores,
        "… and the errors of single rows left out, by RidgeCV": exact.left_out,
        "… and nested cross-validation, by cross_val_score of GridSearchCV": exact.nested,
    }
    return [
        *(Claim(f"{name}, largest relative difference", SKLEARN).at_most(1e-6, v) for name, v in words.items()),
        Claim("λ_min here over λ_min by RidgeCV of the same folds", SKLEARN).close(
            1.0, exact.chosen[0] / exact.ridge_cv, tolerance=1e-12
        ),
        Claim("λ_1se here over glmnet's rule on scikit-learn's errors", GLMNET).close(
            1.0, exact.chosen[1] / exact.expected[1], tolerance=0
        ),
        Claim(f"data sets of {total:,} whose λ_min or λ_1se is not glmnet's", GLMNET).close(0, wrong, tolerance=0),
        Claim("… and cvsd, largest relative difference", GLMNET).at_most(1e-9, largest),
    ]


def _intervals(found: Found) -> list[Claim]:
    covers = [measures.coverage(each) for each in found.ridge]
    own = [measures.conditional(each) for each in found.ridge if each.task.length < 0.6 * each.task.num_rows]

    def mean(name, kind):
        return np.mean([each[name][kind] for each in covers])

    ratio = np.mean([measures.variance_ratio(each.cv)[0] for each in found.ridge])
    return [
        Claim("SE² over the variance of the CV mean, smallest λ, mean over tasks", BENGIO).at_most(1.0, ratio),
        Claim("CV mean ± 1.96 SE holds the average error, one fixed λ, mean over tasks", BATES).at_most(
            0.95, mean("1.96 SE", "fixed λ, average")
        ),
        Claim("… ± 1.96 SE at λ_min, the error of the models at hand", BATES).at_most(
            0.95, mean("1.96 SE", "λ_min, own")
        ),
        Claim("… ± t · SE, Student's quantile for K − 1, one fixed λ", HERE).between(
            0.85, 0.95, mean("t · SE", "fixed λ, average")
        ),
        Claim("nested mean ± t · SE holds the error of the procedures at hand", HERE).between(
            0.85, 0.95, mean("t · SE", "nested, own")
        ),
        Claim(
            "nearly least squares: CV is nearer the average error than that of the model at hand, mean squares, "
            "mean ratio over tasks with T < .6 n",
            BATES,
        ).at_most(1.0, np.mean([each["ratio"] for each in own])),
    ]


def _optimism(found: Found) -> list[Claim]:
    closed = [measures.biases(each) for each in found.ridge]
    trained, num = measures.biases(found.trained), len(closed)
    pooled = Bias(*_pooled([each[NESTED] for each in closed]))
    rows = np.array([each.task.num_rows for each in found.ridge])
    most, fewest = (
        np.mean([b[LEAST].mean for b, own in zip(closed, rows, strict=True) if own == n])
        for n in (rows.max(), rows.min())
    )
    return [
        Claim(f"tasks of {num} whose least CV mean is below the procedure's error by 2 SE", VARMA).at_least(
            num, sum(each[LEAST].z < -2 for each in closed)
        ),
        Claim("… and of trained networks (p)", VARMA).shown(trained[LEAST]),
        Claim(f"tasks of {num} whose least CV mean is below nested CV by 2 SE, data set by data set", CAWLEY).at_least(
            num, sum(measures.bias(each.cv.mean.min(axis=1), each.nested.mean).z < -2 for each in found.ridge)
        ),
        Claim("least CV mean, bias with most rows over bias with fewest", CAWLEY).at_most(1.0, most / fewest),
        Claim("nested CV, bias in standard errors, pooled over tasks", VARMA).between(-2, 2, pooled.z),
        Claim(f"tasks of {num} whose nested CV is off by 2 SE (one in twenty by chance)", VARMA).at_most(
            2, sum(abs(each[NESTED].z) > 2 for each in closed)
        ),
        Claim("nested CV of trained networks, bias in standard errors", VARMA).between(-2, 2, trained[NESTED].z),
    ]


def _pooled(found: Sequence[Bias]) -> tuple[float, float]:
    """The mean of several, and its standard error."""
    return float(np.mean([b.mean for b in found])), float(np.sqrt(np.sum([b.error**2 for b in found]))) / len(found)


def _rules(found: Found) -> list[Claim]:
    snrs = [each.task.snr for each in found.ridge]
    norms = [measures.shrinkage(each.norm, each.cv)["1se"] for each in found.ridge]
    nearer = np.mean([(each.cv.chosen["paired_1se"] <= each.cv.chosen["1se"]).mean() for each in found.ridge])

    def pick(one, other, snr):
        compared = comparisons(found.ridge, one, other)
        return min((c for c, own in zip(compared, snrs, strict=True) if own == snr), key=lambda c: c.mean / c.error)

    low, high = min(snrs), max(snrs)
    return [
        Claim("‖W‖ by 1-SE over ‖W‖ by min, largest over tasks", ESL).at_most(1.0, max(norms)),
        Claim("data sets whose paired λ_1se is at most λ_1se, mean share over tasks", HERE).at_least(0.9, nearer),
        Claim(f"1-SE regrets more than min, SNR {high:g}, the least clear task (p, Holm)", HERE).shown(
            pick("1se", "min", high)
        ),
        Claim(f"min regrets more than 1-SE, SNR {low:g}, the least clear task (p, Holm)", HERE).shown(
            pick("min", "1se", low)
        ),
        Claim(f"1-SE regrets more than paired 1-SE, SNR {high:g}, the least clear task (p, Holm)", HERE).shown(
            pick("1se", "paired_1se", high)
        ),
    ]


def _overlap(found: Found) -> list[Claim]:
    longest = max(found.overlap)
    far = {scheme: measures.dependent_bias(found.overlap[longest][scheme]) for scheme in SCHEMES}
    near = measures.dependent_bias(found.overlap[min(found.overlap)][SCHEMES[0]])
    return [
        Claim(f"one fixed λ, targets of {longest} steps that overlap, shuffled folds: bias below 0 (p)", HERE).shown(
            far[SCHEMES[0]]
        ),
        Claim("… bias of blocks, share of the error", HERE).close(0.0, far[SCHEMES[1]].mean, tolerance=0.05),
        Claim("… of blocks + embargo", HERE).close(0.0, far[SCHEMES[2]].mean, tolerance=0.05),
        Claim("shuffled folds, the next value of an autoregression: bias, share of the error", BERGMEIR).close(
            0.0, near.mean, tolerance=0.05
        ),
    ]


def tables(found: Found) -> str:
    """A line for each task."""
    off_rows, cover_rows, regret_rows = [], [], []
    for one in (*found.ridge, found.trained):
        task, off, cover = one.task, measures.biases(one), measures.coverage(one)
        name = f"{task.num_rows} × {task.length}, SNR {task.snr:g}" + (", networks" * isinstance(one, Trained))
        regret, norm = measures.regrets(true_of(one), one.cv), measures.shrinkage(one.norm, one.cv)
        least = one.cv.mean.min(axis=1)
        biases = (off[LEAST], off[NESTED], measures.bias(least, one.nested.mean))
        ratio = measures.variance_ratio(one.cv)
        off_rows.append((name, *map(_percent, biases), f"{ratio[0]:.2f}", f"{np.median(ratio):.2f}"))
        shares = [share for width in ("1 SE", "t · SE") for share in cover[width].values()]
        cover_rows.append((name, *(f"{100 * share:.0f}" for share in shares)))
        means = [f"{100 * regret[rule].mean():.1f}" for rule in RULES]
        regret_rows.append((name, *means, *(f"{norm[rule]:.2f}" for rule in RULES[1:])))
    kinds = [f"{width}: {kind}" for width in ("± 1", "± t") for kind in measures.coverage(found.trained)["1 SE"]]
    names = ("bias, %: least mean", "nested", "least mean against nested", "SE²/variance, least λ", "median over λ")
    rules = (*(f"regret, %: {rule}" for rule in RULES), *(f"‖W‖ over min: {rule}" for rule in RULES[1:]))
    overlap_rows = [
        (
            f"h = {horizon}, {scheme}",
            *(_percent(measures.dependent_bias(one, chosen=chosen)) for chosen in (False, True)),
            f"{100 * measures.regrets(measures.over_folds(one.inner, one.cv), one.cv)['min'].mean():.1f}",
            f"{measures.over_folds(one.inner, one.cv).mean(axis=0).min():.3f}",
        )
        for horizon, by in found.overlap.items()
        for scheme, one in by.items()
    ]
    last = ("overlapping rows", "bias, %: fixed λ", "at λ_min", "regret of λ_min, %", "least average error")
    made = [(("n × T", *names), off_rows), (("n × T; ± SE holds, %", *kinds), cover_rows)]
    made += [(("n × T", *rules), regret_rows), (last, overlap_rows)]
    return "\n\n".join(text_table(header, rows) for header, rows in made)


def _percent(off: Bias) -> str:
    return f"{100 * off.mean:+.1f} ± {100 * off.error:.1f}"


def true_of(one: Simulated | Trained) -> np.ndarray:
    """`[S, λ]`, the true errors by which rules are judged: of all rows, or of the networks of the folds."""
    return one.refit if isinstance(one, Simulated) else measures.over_folds(one.inner, one.cv)


def summary_of(found: Found) -> dict[str, Any]:
    """What goes into summary.json."""
    every = {"ridge": found.ridge, "trained": [found.trained]}
    return {
        "exact": found.exact,
        **{
            kind: [
                {
                    "task": one.task,
                    "coverage": measures.coverage(one),
                    "bias": measures.biases(one),
                    "variance_ratio": measures.variance_ratio(one.cv),
                    "norm": measures.shrinkage(one.norm, one.cv),
                    "regret": {rule: values.mean() for rule, values in measures.regrets(true_of(one), one.cv).items()},
                }
                for one in ones
            ]
            for kind, ones in every.items()
        },
        "conditional": [measures.conditional(one) for one in found.ridge],
        "overlap": {
            horizon: {scheme: measures.dependent_bias(one) for scheme, one in by.items()}
            for horizon, by in found.overlap.items()
        },
    }
