"""The claims of the study, with what was expected of each before it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments._harness import Claim, proportion
from experiments._thresholds import Ratio, Threshold, ratio
from experiments.memory_thresholds import theory
from experiments.memory_thresholds.controls import Controls, law_fall
from experiments.memory_thresholds.diagram import Study, at_last, worth
from experiments.memory_thresholds.law import Law
from experiments.memory_thresholds.slopes import scores

SKETCH = "this project's sketch"
FORM = "λ_cold ∝ T g^(T−2)"


def of_thresholds(study: Study, law: Law, predictions: dict[str, Any]) -> list[Claim]:
    """Where the thresholds are: of linear networks, of the law, and of the sketch."""
    linear = [
        Claim(f"{key}: {name} over the closed form of its solution (real or pair), median", "closed form").close(
            1.0, np.exp(np.median(values)) if len(values) else None, tolerance=0.1
        )
        for key, diagram in study.every.items()
        if key.startswith("linear")
        for name, values in branch_ratios(diagram.warm).items()
    ]
    return [*linear, *of_law(study.main, law, predictions), *of_heights(study.main)]


def branch_ratios(warm: dict[int, Any]) -> dict[str, np.ndarray]:
    """Each linear path's λ_c and λ_s over the theory of the solution that it is in, ln ratios `[path]`.

    A path is in the solution with one real eigenvalue where ‖W_hh‖² is nearer to ρ² than to 2ρ² at its last λ alive.
    """
    forms = {"λ_c": theory.network_switch, "λ_s": theory.network_spinodal}
    found: dict[str, list[float]] = {name: [] for name in forms}
    for T, paths in warm.items():
        up = paths.sel(way="up")
        middle = np.sqrt(up.l2 * up.l2.shift(l2=-1))  # of the bracket; none beyond the last λ
        for name, held in (("λ_c", worth(up)), ("λ_s", up.alive)):
            real, pair = forms[name](T), forms[name](T, pair=True)
            expected = np.where(at_last(up.cost, held) > 1.5, pair, real)
            ratios = np.log(at_last(middle, held).values / expected)
            found[name] += ratios[np.isfinite(ratios)].tolist()
    return {name: np.array(values) for name, values in found.items()}


def of_law(main: Any, law: Law, predictions: dict[str, Any]) -> list[Claim]:
    """The law of λ_cold, and what it predicted."""
    power, constant = _known(law.free[2]), _known(law.constant)
    found = [
        Claim("λ_cold fitted freely: factor of (T−2) ln g", FORM).close(1.0, power, tolerance=0.1),
        Claim("the constant c of λ_cold = c T g^(T−2)", SKETCH).close(0.06, constant, tolerance=0.03),
    ]
    for p in predictions["cold"]:
        name = f"predicted: λ_cold, T = {p['T']}, g = {p['gain']:g}"
        met = _over(main.lam_cold[p["T"], p["gain"]], p["predicted"])
        found.append(within_factor(2.0, name, met, "the law, before it was run"))
    for p in predictions["warm"]:
        name = f"predicted: {p['threshold'].replace('lam', 'λ')}, T = {p['T']}"
        met = _over(getattr(main, p["threshold"])[p["T"]], p["predicted"])
        found.append(within_factor(1.5, name, met, "power of T, before it was run"))
    return found


def of_heights(main: Any) -> list[Claim]:
    """λ_c and λ_s of the network of the main diagram, as the sketch saw them."""
    steps = sorted(main.lam_s)
    short, long = steps[0], steps[-1]
    rise = _over(main.lam_s[long], long / 4)
    flat = _over(ratio(main.lam_c[long], main.lam_c[short]), 1.0) if long > short else None
    flatness = f"λ_c, T = {long}, over T = {short} (flat)"
    ends = Claim("λ_s, T = 20", f"{SKETCH}: the way up ends between 1.3 and 1.8")
    return [
        within_factor(2.0, f"λ_s, T = {long}, over T / 4", rise, f"{SKETCH}: λ_s ~ T / 4"),
        within_factor(2.0, flatness, flat, f"{SKETCH}: λ_c is flat"),
        ends.between(1.3, 1.8, _over(main.lam_s.get(20), 1.0)),
    ]


def of_axes(study: Study) -> list[Claim]:
    """Gradient and ρ of networks that hold their bits, and of those that have lost them."""
    cold, warm = study.shown
    up = warm.sel(way="up")
    living = cold.alive & (cold.l2 >= 0.01)
    gone = int((~up.alive).sum())
    found = []
    for values, symbol, low, high, seen in (
        (cold.gradient, "‖∂h_T/∂h_0‖", 1.0, 10.0, "order 1–10"),
        (cold.rho, "ρ(W_hh)", 1.12, 1.23, "1.12–1.23"),
    ):
        name = f"T = {study.config.shown_steps}, cold, λ ≥ .01, bits held: least {symbol}"
        held, source = values.where(living), f"{SKETCH}: {seen}"
        found += [
            Claim(name, source).at_least(low, _known(held.min())),
            Claim("… and the largest", source).at_most(high, _known(held.max())),
        ]
    ends = at_last(up.gradient, up.alive) / up.gradient.isel(l2=0)
    return [
        *found,
        Claim(
            "no fading before the cliff: up-path, ‖∂h_T/∂h_0‖ at the last λ alive over λ = .02, median",
            f"{SKETCH}: no decay in λ",
        ).at_least(0.5, _known(ends.where(up.alive.sum("l2") > 1).median())),
        Claim(
            f"beyond λ_s the gradient is gone: largest ‖∂h_T/∂h_0‖ of {gone} states on the way up",
            f"{SKETCH}: exactly 0",
        ).at_most(1e-6, _known(up.gradient.where(~up.alive).max())),
        of_return(study.main.warm),
    ]


def of_return(warm: dict[int, Any]) -> Claim:
    """Of the paths that had lost their memory at the top, by T, none has it again on the way down."""
    revived, dead = 0, 0
    for paths in warm.values():
        fell = ~paths.alive.sel(way="up").isel(l2=-1)
        revived += int((paths.alive.sel(way="down").any("l2") & fell).sum())
        dead += int(fell.sum())
    name = "the way down never recovers: paths alive again"
    return none_of(name, revived, dead, "w = 0 is a local minimum for every λ > 0")


def of_slopes(slopes: dict[str, Any]) -> list[Claim]:
    """The exponent along the data explains the slope best."""
    found, expected = [], "λ_max along the data"
    source = "Lyapunov exponents are the rates of the product itself"
    for name, networks in slopes.items():
        by = scores(networks)
        best = max(by, key=lambda predictor: by[predictor].r2)
        known = np.isfinite(by[best].r2)
        told, holds = (f"{best} ({by[best].r2:.2f})", best == expected) if known else (None, None)
        name = f"{name}: best of four predictors of the slope, by R²"
        found.append(Claim(name, source, expected, None, told, holds))
    return found


def of_controls(config: Any, controls: Controls) -> list[Claim]:
    """What other ways to train, and what history should do."""
    if not controls.cold:
        return []
    short, long = config.control_steps[0], config.control_steps[-1]
    names = ("linear", "relu", "SGD, clipped", "AdamW (decoupled)", "penalty on W_hh only")
    identity = "penalty to the identity"
    found = [
        within_factor(
            2.0,
            f"{identity}: λ_cold at T = {long} over T = {short} (no fall with T)",
            _over(controls.fall.get(identity), 1.0),
            "closed form at W_hh = I: p = 1 − λ for every T",
        )
    ]
    for name in names:
        met = _over(controls.fall.get(name), law_fall(short, long))
        name = f"{name}: fall of λ_cold from T = {short} to {long}, over the law's"
        found.append(within_factor(2.0, name, met, FORM))
    for T, history in controls.history.items():
        num, revived, _ = history.collapsed
        name = f"T = {T}: λ off after a collapse to W = 0: networks that come back"
        found.append(none_of(name, revived, num, "W = 0 is a critical point of order T + 2"))
    for T, one in controls.scaled.items():
        name = f"T = {T}: a free network scaled to the penalised one's ‖W_hh‖: decoded bits"
        bits = one.bits[1] if one.bits[0] > 0.5 else None  # is there a memory at all
        source = f"{SKETCH}: the norm is not what holds a memory"
        found.append(Claim(name, source).at_most(0.1, bits))
    return found


def within_factor(factor: float, name: str, ratio: float | None, source: str) -> Claim:
    """Measured over predicted lies within a factor."""
    return Claim(f"{name}: measured / predicted", source).between(1 / factor, factor, ratio)


def none_of(name: str, count: int, num: int, source: str) -> Claim:
    """None of `num` does it; with the upper end of the 95 % interval of the share."""
    if not num:
        return Claim(name, source, "0 of 0", None, None, None)
    measured = f"{count} of {num} (95 %: at most {float(proportion(count, num)[1]):.0%})"
    return Claim(name, source, f"0 of {num}", None, measured, count == 0)


def _over(found: Threshold | Ratio | None, predicted: float) -> float | None:
    """Measured over predicted; None where the grid does not bound the threshold, or it is not among those asked for."""
    return found.value / predicted if found and 0 < found.value < np.inf else None


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
