"""Claims and tables of the λ sweep."""

from __future__ import annotations

from typing import Any

import rnnreg as rr
from experiments._harness import Claim, text_table
from experiments._sunspots.autoregression import PUBLISHED
from experiments.lambda_sweep.comparison import SPANS, TESTS, BySpan, Comparison
from experiments.lambda_sweep.path import LambdaPath

HERE = "this project"
PASCANU = "Pascanu, Mikolov & Bengio 2013, section 3.1"


def claims(config: Any, result: rr.SweepResult, compared: Comparison, scores, paired) -> list[Claim]:
    """What was expected, beside what the paired comparisons, the weights and the machine say."""
    path, chosen, plain = compared.path, compared.chosen, compared.plain
    after = f"{HERE}, added after the first run"
    both = "chosen clearly better than unregularised, {} (paired bootstrap p)"
    one = "one chosen network clearly better than one unregularised, {} (paired p)"
    aim = "aim: ARV less than AR(9) on the square root, {} (paired bootstrap p)"
    lag = min(10, config.window - 1)
    rho = path.rho[chosen].mean() / path.rho[plain].mean()
    return [
        Claim("ARV of the chosen network on 1921-1955", HERE).at_most(
            0.11, scores["chosen"]["test_1921_1955"]["arv"].value
        ),
        *(
            Claim(words.format(span), who).shown(paired[f"{name}, {span}"])
            for words, name, who in (
                (both, "chosen - unregularised", HERE),
                (one, "one network, chosen - unregularised", after),
            )
            for span in TESTS
        ),
        Claim(
            "chosen not worse than AR(9) on the square root, all tests (paired bootstrap p of 'worse')", HERE
        ).at_least(0.05, paired["chosen - ar9_sqrt, all tests"].p_worse),
        *(Claim(aim.format(span), HERE).shown(paired[f"chosen - ar9_sqrt, {span}"]) for span in TESTS),
        Claim("λ shrinks the recurrent matrix: ρ(W_hh) at the chosen λ over ρ at λ = 0", PASCANU).at_most(1.0, rho),
        Claim(f"gradients vanish sooner: r({lag}) at the chosen λ over r({lag}) at λ = 0", PASCANU).at_most(
            1.0, path.ratio[chosen, lag] / path.ratio[plain, lag]
        ),
        Claim("compilations of the run", HERE).close(1, result.config["compilations"], tolerance=0),
        Claim("seconds of computing", HERE).at_most(120, result.config["seconds_compute"]),
    ]


def found(
    config: Any, choice: rr.selection.Choice, compared: Comparison, scores, paired, hindsight: BySpan
) -> list[str]:
    """What the run measured, in five sentences."""
    path, chosen, plain, span = compared.path, compared.chosen, compared.plain, "test_1921_1955"
    lag = min(10, config.window - 1)
    one = [hindsight[span]["one_network"][place] for place in (chosen, plain)]

    def verdict(test, better, worse):
        shown = better if test.p_better <= 0.05 else worse if test.p_worse <= 0.05 else "not told apart by these data"
        return f"{shown} (paired bootstrap, p = {min(test.p_better, test.p_worse):.2g})"

    return [
        f"Cross-validation chose λ = {choice.lam:.3g} ({config.rule}); within one standard error λ may be as large as "
        f"{choice.lam_1se:.3g}.",
        f"On 1921–1955 one network has an error (ARV) of {one[0]:.3f} at that λ and of {one[1]:.3f} at λ = 0: "
        + verdict(paired[f"one network, chosen - unregularised, {span}"], "better", "worse")
        + ".",
        f"The mean of {config.seeds} networks has {scores['chosen'][span]['arv'].value:.3f} and "
        f"{scores['unregularised'][span]['arv'].value:.3f}: "
        + verdict(paired[f"chosen - unregularised, {span}"], "better", "worse")
        + ".",
        "Next to AR(9) on the square root it is, on 1921–1955, 1956–1979, 1980–2008: "
        + "; ".join(verdict(paired[f"chosen - ar9_sqrt, {name}"], "better", "worse") for name in TESTS)
        + ".",
        f"The price: λ took ρ(W_hh) from {path.rho[plain].mean():.2f} to {path.rho[chosen].mean():.2f}, and the "
        f"gradient {lag} years back from {path.ratio[plain, lag]:.2g} to {path.ratio[chosen, lag]:.2g} of "
        "its last value.",
    ]


def lambda_table(choice: rr.selection.Choice, path: LambdaPath) -> str:
    """λ by λ: the cross-validated ARV, that of training, spectral radius and norm of the weights."""
    columns = (path.lam, *choice.curve[1:3], path.train_arv, path.rho.mean(1), path.norm.mean(1))
    rows = [
        (
            f"{lam:.3g}" + (" *" if lam == choice.lam else ""),
            f"{mean:.4f} ± {se:.4f}",
            f"{train_arv:.4f}",
            f"{rho:.3f}",
            f"{norm:.3f}",
        )
        for lam, mean, se, train_arv, rho, norm in zip(*columns, strict=True)
    ]
    return text_table(("λ (* chosen)", "CV mean ARV ± SE", "train ARV", "ρ(W_hh)", "‖W‖"), rows)


def score_table(scores) -> str:
    """ARV of every method and of the literature, and R², with bootstrap intervals."""

    def row(method, by, name, digits):
        found = [[f"{value:.{digits}f}" for value in by[span][name][:3]] for span in SPANS]
        return (method, *(f"{value} [{low}, {high}]" for value, low, high in found))

    rows = [row(method, by, "arv", 3) for method, by in scores.items()]
    for entry in PUBLISHED:
        note = "quoted" if entry.verified else "quoted, unverified"
        values = (entry.train, entry.test_1921_1955, entry.test_1956_1979)
        rows.append((f"{entry.name} ({note})", *(f"{value:.3f}" for value in values), ""))
    arv = text_table(("ARV [90 % bootstrap]", *SPANS), rows)
    rows = [row(method, by, "r2", 2) for method, by in scores.items()]
    return arv + "\n\n" + text_table(("R² [90 % bootstrap]", *SPANS), rows) + "\n"


def hindsight_table(path: LambdaPath, hindsight: BySpan) -> str:
    """Test ARV along the path, looked at after the fact."""
    columns = [hindsight[span][name] for span in TESTS for name in ("mean_forecast", "one_network")]
    rows = [(f"{lam:.3g}", *(f"{column[place]:.3f}" for column in columns)) for place, lam in enumerate(path.lam)]
    header = [f"{span[5:]} {name}" for span in TESTS for name in ("mean", "one")]
    return text_table(("λ", *header), rows)
