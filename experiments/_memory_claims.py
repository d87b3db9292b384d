"""The claims of `experiments.memory_thresholds`, with what was expected of each before it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import _memory_theory as theory
from experiments._intervals import proportion
from experiments._memory_controls import law_fall
from experiments._memory_runs import cost_of
from experiments._memory_statistics import Law
from experiments._report import Claim
from experiments._thresholds import Ratio, Threshold, ratio

SKETCH = "this project's sketch"


def branch_ratios(diagram: Any) -> tuple[np.ndarray, np.ndarray]:
    """Each linear path's λ_c and λ_s over the theory of the solution that it is in, ln ratios `[path]`.

    A path is in the solution with one real eigenvalue where ‖W_hh‖² is nearer to ρ² than to 2ρ² at its last λ alive.
    """
    switch, spinodal = [], []
    for T, warm in diagram.warm.items():
        cost = cost_of(warm)
        for seed in range(warm.loss.shape[2]):
            alive = warm.alive[0, :, seed]
            worth = alive & (warm.objective[0, :, seed] < 1)
            for held, out, formula in (
                (worth, switch, theory.network_switch),
                (alive, spinodal, theory.network_spinodal),
            ):
                count = int(held.sum())
                if 0 < count < len(held):
                    pair = bool(cost[count - 1, seed] > 1.5)
                    middle = np.sqrt(warm.lams[count - 1] * warm.lams[count])
                    out.append(np.log(middle / formula(T, pair=pair)))
    return np.array(switch), np.array(spinodal)


def _off(found: Threshold | Ratio | None, predicted: float) -> float | None:
    """Measured over predicted; None where the grid does not bound the threshold, or it is not among those asked for."""
    return found.value / predicted if found and 0 < found.value < np.inf else None


def claims(
    config: Any,
    diagrams: dict[str, Any],
    paths: dict[str, Any],
    law: Law,
    predictions: dict[str, Any],
    slopes: dict[str, Any],
    controls: Any,
    axes: Any,
) -> list[Claim]:
    """What was expected beforehand, and whether it holds."""
    main = diagrams[config.activations[0]]
    found: list[Claim] = []
    for key, diagram in (diagrams | paths).items():
        if not key.startswith("linear"):
            continue
        ratios = branch_ratios(diagram)
        for name, values in zip(("λ_c", "λ_s"), ratios, strict=True):
            found.append(
                Claim.close(
                    f"{key}: {name} over the closed form of its solution (real or pair), median",
                    source="closed form",
                    expected=1.0,
                    tolerance=0.1,
                    measured=float(np.exp(np.median(values))) if len(values) else None,
                )
            )
    found += _law_claims(main, law, predictions)
    found += _height_claims(main)
    found += _axis_claims(config, main, axes)
    found += _slope_claims(slopes)
    found += _control_claims(config, controls)
    return found


def _law_claims(main: Any, law: Law, predictions: dict[str, Any]) -> list[Claim]:
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
        ratio = _off(main.lam_cold[p["T"], p["gain"]], p["predicted"])
        found.append(
            _factor(
                f"predicted: λ_cold, T = {p['T']}, g = {p['gain']:g}",
                ratio,
                2.0,
                "the law, before it was run",
            )
        )
    for p in predictions["warm"]:
        ratio = _off(getattr(main, p["threshold"])[p["T"]], p["predicted"])
        name = p["threshold"].replace("lam", "λ")
        found.append(
            _factor(f"predicted: {name}, T = {p['T']}", ratio, 1.5, "power of T, before it was run")
        )
    return found


def _height_claims(main: Any) -> list[Claim]:
    """λ_c and λ_s of the network of the main diagram, as the sketch saw them."""
    steps = sorted(main.lam_s)
    short, long = steps[0], steps[-1]
    flat = ratio(main.lam_c[long], main.lam_c[short]) if long > short else None
    at_20 = _off(main.lam_s.get(20), 1.0)
    return [
        _factor(
            f"λ_s, T = {long}, over T / 4",
            _off(main.lam_s[long], long / 4),
            2.0,
            f"{SKETCH}: λ_s ~ T / 4",
        ),
        _factor(
            f"λ_c, T = {long}, over T = {short} (flat)",
            _off(flat, 1.0),
            2.0,
            f"{SKETCH}: λ_c is flat",
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


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _factor(name: str, ratio: float | None, factor: float, source: str) -> Claim:
    """Measured over predicted lies within a factor."""
    holds = None if ratio is None else 1 / factor <= ratio <= factor
    return Claim(
        f"{name}: measured / predicted", source, f"1 within a factor {factor:g}", None, ratio, holds
    )


def _axis_claims(config: Any, main: Any, axes: Any) -> list[Claim]:
    cold, up = axes.cold, axes.warm
    fair = axes.cold_lams >= 0.01
    living = axes.cold_alive & fair[:, None]
    gradients = cold.gradient[living]
    gone = int((~main.warm[config.shown_steps].alive[0]).sum())
    revived, dead = 0, 0
    for warm in main.warm.values():
        fell = ~warm.alive[0, -1]  # paths that had lost it at the top
        revived += int(warm.alive[1][:, fell].any(axis=0).sum())
        dead += int(fell.sum())
    share = f"{revived} of {dead}"
    high = float(proportion(np.array(revived), dead)[1]) if dead else 1.0
    ends = _end_to_end(axes)
    return [
        Claim.at_least(
            f"T = {config.shown_steps}, cold, λ ≥ .01, bits held: least ‖∂h_T/∂h_0‖",
            source=SKETCH + ": order 1–10",
            expected=1.0,
            measured=float(gradients.min()) if gradients.size else None,
        ),
        Claim.at_most(
            "… and the largest",
            source=SKETCH + ": order 1–10",
            expected=10.0,
            measured=float(gradients.max()) if gradients.size else None,
        ),
        Claim.at_least(
            f"T = {config.shown_steps}, cold, λ ≥ .01, bits held: least ρ(W_hh)",
            source=f"{SKETCH}: 1.12–1.23",
            expected=1.12,
            measured=float(cold.rho[living].min()) if gradients.size else None,
        ),
        Claim.at_most(
            "… and the largest",
            source=f"{SKETCH}: 1.12–1.23",
            expected=1.23,
            measured=float(cold.rho[living].max()) if gradients.size else None,
        ),
        Claim.at_least(
            "no fading before the cliff: up-path, ‖∂h_T/∂h_0‖ at the last λ alive over λ = .02, median",
            source=SKETCH + ": no decay in λ",
            expected=0.5,
            measured=ends,
        ),
        Claim.at_most(
            f"beyond λ_s the gradient is gone: largest ‖∂h_T/∂h_0‖ of {gone} states on the way up",
            source=SKETCH + ": exactly 0",
            expected=1e-6,
            measured=float(
                np.where(main.warm[config.shown_steps].alive[0], 0, up.gradient[0]).max()
            )
            if gone
            else None,
        ),
        Claim(
            "the way down never recovers: paths alive again",
            "w = 0 is a local minimum for every λ > 0",
            f"0 of {dead}",
            None,
            f"{share} (95 %: at most {high:.0%})" if dead else None,
            revived == 0 if dead else None,
        ),
    ]


def _end_to_end(axes: Any) -> float | None:
    gradient, alive = axes.warm.gradient[0], axes.warm_alive
    counts = alive.sum(axis=0)
    pairs = [
        gradient[count - 1, seed] / gradient[0, seed]
        for seed, count in enumerate(counts)
        if count > 1
    ]
    return float(np.median(pairs)) if pairs else None


def _slope_claims(slopes: dict[str, Any]) -> list[Claim]:
    found = []
    for name, table in slopes.items():
        best = max(table.scores, key=lambda predictor: table.scores[predictor].r2)
        known = np.isfinite(table.scores[best].r2)
        found.append(
            Claim(
                f"{name}: best of four predictors of the slope, by R²",
                "Lyapunov exponents are the rates of the product itself",
                "λ_max along the data",
                None,
                f"{best} ({table.scores[best].r2:.2f})" if known else None,
                best == "λ_max along the data" if known else None,
            )
        )
    return found


def _control_claims(config: Any, controls: Any) -> list[Claim]:
    if not controls.cold:
        return []
    short, long = config.control_steps[0], config.control_steps[-1]

    law = law_fall(short, long)
    found = [
        _factor(
            f"penalty to the identity: λ_cold at T = {long} over T = {short} (no fall with T)",
            _off(controls.fall.get("penalty to the identity"), 1.0),
            2.0,
            "closed form at W_hh = I: p = 1 − λ for every T",
        )
    ]
    for name in ("linear", "relu", "SGD, clipped", "AdamW (decoupled)", "penalty on W_hh only"):
        found.append(
            _factor(
                f"{name}: fall of λ_cold from T = {short} to {long}, over the law's",
                _off(controls.fall.get(name), law),
                2.0,
                "λ_cold ∝ T g^(T−2)",
            )
        )
    for T, history in controls.history.items():
        at_zero = history.collapsed
        found.append(
            Claim(
                f"T = {T}: λ off after a collapse to W = 0: networks that come back",
                "W = 0 is a critical point of order T + 2",
                f"0 of {at_zero.num}",
                None,
                f"{at_zero.revived} of {at_zero.num} (95 %: at most {at_zero.high:.0%})"
                if at_zero.num
                else None,
                at_zero.revived == 0 if at_zero.num else None,
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
