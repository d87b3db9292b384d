"""The claims of the study, with what was expected of each before it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments._intervals import proportion
from experiments._report import Claim
from experiments._thresholds import Ratio, Threshold, ratio
from experiments.memory_thresholds.controls import Controls, law_fall
from experiments.memory_thresholds.diagram import at_last, branch_ratios
from experiments.memory_thresholds.law import Law
from experiments.memory_thresholds.slopes import scores

SKETCH = "this project's sketch"


def claims_of(study: Any) -> list[Claim]:
    """What was expected beforehand, and whether it holds."""
    linear = {name: diagram for name, diagram in study.every.items() if name.startswith("linear")}
    return [
        *linear_claims(linear),
        *law_claims(study.main, study.law, study.predictions),
        *height_claims(study.main),
        *axis_claims(study),
        *slope_claims(study.slopes),
        *control_claims(study.config, study.controls),
    ]


def linear_claims(diagrams: dict[str, Any]) -> list[Claim]:
    """A linear network follows its closed forms."""
    return [
        Claim.close(
            f"{key}: {name} over the closed form of its solution (real or pair), median",
            source="closed form",
            expected=1.0,
            tolerance=0.1,
            measured=float(np.exp(np.median(values))) if len(values) else None,
        )
        for key, diagram in diagrams.items()
        for name, values in branch_ratios(diagram).items()
    ]


def law_claims(main: Any, law: Law, predictions: dict[str, Any]) -> list[Claim]:
    """The law of λ_cold, and what it predicted."""
    found = [
        Claim.close(
            "λ_cold fitted freely: factor of (T−2) ln g",
            source="λ_cold ∝ T g^(T−2)",
            expected=1.0,
            tolerance=0.1,
            measured=_known(law.free[2]),
        ),
        Claim.close(
            "the constant c of λ_cold = c T g^(T−2)",
            source=SKETCH,
            expected=0.06,
            tolerance=0.03,
            measured=_known(law.constant),
        ),
    ]
    for p in predictions["cold"]:
        found.append(
            within_factor(
                2.0,
                f"predicted: λ_cold, T = {p['T']}, g = {p['gain']:g}",
                _over(main.lam_cold[p["T"], p["gain"]], p["predicted"]),
                source="the law, before it was run",
            )
        )
    for p in predictions["warm"]:
        found.append(
            within_factor(
                1.5,
                f"predicted: {p['threshold'].replace('lam', 'λ')}, T = {p['T']}",
                _over(getattr(main, p["threshold"])[p["T"]], p["predicted"]),
                source="power of T, before it was run",
            )
        )
    return found


def height_claims(main: Any) -> list[Claim]:
    """λ_c and λ_s of the network of the main diagram, as the sketch saw them."""
    steps = sorted(main.lam_s)
    short, long = steps[0], steps[-1]
    flat = ratio(main.lam_c[long], main.lam_c[short]) if long > short else None
    at_20 = _over(main.lam_s.get(20), 1.0)
    return [
        within_factor(
            2.0,
            f"λ_s, T = {long}, over T / 4",
            _over(main.lam_s[long], long / 4),
            source=f"{SKETCH}: λ_s ~ T / 4",
        ),
        within_factor(
            2.0,
            f"λ_c, T = {long}, over T = {short} (flat)",
            _over(flat, 1.0),
            source=f"{SKETCH}: λ_c is flat",
        ),
        Claim(
            "λ_s, T = 20",
            f"{SKETCH}: the way up ends between 1.3 and 1.8",
            "1.3 to 1.8",
            None,
            at_20,
            None if at_20 is None else 1.3 <= at_20 <= 1.8,
        ),
    ]


def axis_claims(study: Any) -> list[Claim]:
    """Gradient and ρ of networks that hold their bits, and of those that have lost them."""
    cold, warm = study.shown
    up = warm.sel(way="up")
    living = cold.alive & (cold.l2 >= 0.01)
    gone = int((~up.alive).sum())
    first = f"T = {study.config.shown_steps}, cold, λ ≥ .01, bits held: least "
    ends = at_last(up.gradient, up.alive).where(up.alive.sum("l2") > 1) / up.gradient.isel(l2=0)

    def extreme(values, held, name):
        return float(getattr(values.where(held), name)()) if held.any() else None

    found = []
    for values, symbol, low, high, seen in (
        (cold.gradient, "‖∂h_T/∂h_0‖", 1.0, 10.0, "order 1–10"),
        (cold.rho, "ρ(W_hh)", 1.12, 1.23, "1.12–1.23"),
    ):
        source = f"{SKETCH}: {seen}"
        least, largest = extreme(values, living, "min"), extreme(values, living, "max")
        found.append(Claim.at_least(first + symbol, source=source, expected=low, measured=least))
        found.append(
            Claim.at_most("… and the largest", source=source, expected=high, measured=largest)
        )
    return [
        *found,
        Claim.at_least(
            "no fading before the cliff: up-path, ‖∂h_T/∂h_0‖ at the last λ alive over λ = .02, median",
            source=f"{SKETCH}: no decay in λ",
            expected=0.5,
            measured=_known(float(ends.median())),
        ),
        Claim.at_most(
            f"beyond λ_s the gradient is gone: largest ‖∂h_T/∂h_0‖ of {gone} states on the way up",
            source=f"{SKETCH}: exactly 0",
            expected=1e-6,
            measured=extreme(up.gradient, ~up.alive, "max"),
        ),
        no_return_claim(study.main.warm),
    ]


def no_return_claim(warm: dict[int, Any]) -> Claim:
    """Of the paths that had lost their memory at the top, by T, none has it again on the way down."""
    revived, dead = 0, 0
    for paths in warm.values():
        fell = ~paths.alive.sel(way="up").isel(l2=-1)
        revived += int((paths.alive.sel(way="down").any("l2") & fell).sum())
        dead += int(fell.sum())
    high = float(proportion(np.array(revived), dead)[1]) if dead else 1.0
    return Claim(
        "the way down never recovers: paths alive again",
        "w = 0 is a local minimum for every λ > 0",
        f"0 of {dead}",
        None,
        f"{revived} of {dead} (95 %: at most {high:.0%})" if dead else None,
        revived == 0 if dead else None,
    )


def slope_claims(slopes: dict[str, Any]) -> list[Claim]:
    """The exponent along the data explains the slope best."""
    found = []
    for name, networks in slopes.items():
        by = scores(networks)
        best = max(by, key=lambda predictor: by[predictor].r2)
        known = np.isfinite(by[best].r2)
        found.append(
            Claim(
                f"{name}: best of four predictors of the slope, by R²",
                "Lyapunov exponents are the rates of the product itself",
                "λ_max along the data",
                None,
                f"{best} ({by[best].r2:.2f})" if known else None,
                best == "λ_max along the data" if known else None,
            )
        )
    return found


def control_claims(config: Any, controls: Controls) -> list[Claim]:
    """What other ways to train, and what history should do."""
    if not controls.cold:
        return []
    short, long = config.control_steps[0], config.control_steps[-1]
    found = [
        within_factor(
            2.0,
            f"penalty to the identity: λ_cold at T = {long} over T = {short} (no fall with T)",
            _over(controls.fall.get("penalty to the identity"), 1.0),
            source="closed form at W_hh = I: p = 1 − λ for every T",
        )
    ]
    for name in ("linear", "relu", "SGD, clipped", "AdamW (decoupled)", "penalty on W_hh only"):
        found.append(
            within_factor(
                2.0,
                f"{name}: fall of λ_cold from T = {short} to {long}, over the law's",
                _over(controls.fall.get(name), law_fall(short, long)),
                source="λ_cold ∝ T g^(T−2)",
            )
        )
    for T, history in controls.history.items():
        num, revived, high = history.collapsed
        found.append(
            Claim(
                f"T = {T}: λ off after a collapse to W = 0: networks that come back",
                "W = 0 is a critical point of order T + 2",
                f"0 of {num}",
                None,
                f"{revived} of {num} (95 %: at most {high:.0%})" if num else None,
                revived == 0 if num else None,
            )
        )
    for T, one in controls.scaled.items():
        found.append(
            Claim.at_most(
                f"T = {T}: a free network scaled to the penalised one's ‖W_hh‖: decoded bits",
                source=f"{SKETCH}: the norm is not what holds a memory",
                expected=0.1,
                measured=one.bits[1] if one.bits[0] > 0.5 else None,  # is there a memory at all
            )
        )
    return found


def within_factor(factor: float, name: str, ratio: float | None, *, source: str) -> Claim:
    """Measured over predicted lies within a factor."""
    holds = None if ratio is None else 1 / factor <= ratio <= factor
    expected = f"1 within a factor {factor:g}"
    return Claim(f"{name}: measured / predicted", source, expected, None, ratio, holds)


def _over(found: Threshold | Ratio | None, predicted: float) -> float | None:
    """Measured over predicted; None where the grid does not bound the threshold, or it is not among those asked for."""
    return found.value / predicted if found and 0 < found.value < np.inf else None


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
