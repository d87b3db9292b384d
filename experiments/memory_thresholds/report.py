"""What the study prints: tables of thresholds, the law, latches, controls."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments._harness import text_table
from experiments._thresholds import interval
from experiments.memory_thresholds import slopes, theory
from experiments.memory_thresholds.controls import BASE, GAIN, Controls, Returned, law_fall
from experiments.memory_thresholds.diagram import Study, at_last
from experiments.memory_thresholds.law import Law


def text(study: Study, networks: dict[str, Any], controls: Controls) -> str:
    """Everything but the claims."""
    parts = [threshold_table(study.every)]
    for name, rows in networks.items():
        parts += [slopes.table(name, rows), *map(_told_latch, latches(study.diagrams[name]))]
    return "\n".join([*parts, control_table(controls)])


def law_lines(law: Law, predictions: dict[str, Any]) -> str:
    """The fitted law, and the predictions before anything of them is run."""
    a, b, d = law.free
    known = np.isfinite(d)
    free = f"{np.exp(a):.3f} T^{b:.2f} g^({d:.3f} (T−2))" if known else "too few thresholds"
    ahead = [f"λ_cold(T = {p['T']}, g = {p['gain']:g}) {p['predicted']:.3g}" for p in predictions["cold"]]
    ahead += [f"{p['threshold'].replace('lam', 'λ')}(T = {p['T']}) {p['predicted']:.3g}" for p in predictions["warm"]]
    return (
        f"law: λ_cold = c T g^(T−2), c = {law.constant:.3f} [{law.low:.3f}, {law.high:.3f}] from {law.num} thresholds, "
        f"scatter of ln λ {law.residual:.2f}\nfitted freely: {free}\n"
        f"predicted, not yet run: {', '.join(ahead) or 'nothing'}"
    )


def threshold_table(diagrams: dict[str, Any]) -> str:
    """Every threshold beside the linear network's theory."""
    forms = "linear theory: pair, real"
    rows = []
    for name, diagram in diagrams.items():
        for T in sorted(diagram.warm):
            up = diagram.warm[T].sel(way="up")
            switch, spinodal = (
                f"{form(T, pair=True):.2f}, {form(T):.2f}" for form in (theory.network_switch, theory.network_spinodal)
            )
            lam_c, lam_s = interval(diagram.lam_c[T]), interval(diagram.lam_s[T])
            cost = float(at_last(up.cost, up.alive).median())
            runs = [up, *([diagram.cold[T]] if T in diagram.cold else [])]
            last = max(float((run.l2 * run.alive).max()) for run in runs)
            rows.append((name, str(T), lam_c, switch, lam_s, spinodal, f"{cost:.2f}", f"{last:.3g}"))
    notes = (
        "λ_c and λ_s are those of the solution that the path is in; ‖W_hh‖²/ρ² at its last λ alive (median): 1 for "
        "one real eigenvalue, 2 for a pair.\nany alive: the largest λ at which a network held its bits, cold or up"
    )
    header = ("", "T", "λ_c", forms, "λ_s", forms, "‖W‖²/ρ²", "any alive")
    return text_table(header, rows) + "\n" + notes


def as_entries(diagram: Any) -> dict[str, Any]:
    """Thresholds for summary.json."""
    cold = diagram.lam_cold.items()
    return {
        "cold": [{"T": T, "gain": gain, **found._asdict()} for (T, gain), found in cold],
        "switch": [{"T": T, **found._asdict()} for T, found in diagram.lam_c.items()],
        "spinodal": [{"T": T, **found._asdict()} for T, found in diagram.lam_s.items()],
    }


def latches(diagram: Any, *, below: float = 0.05, lam: float = 1e-3) -> list[dict[str, Any]]:
    """Networks at small λ that hold their bits while ‖∂h_T/∂h_0‖ is below 0.05, and what more λ makes of them.

    Returns:
      For each T: how many of the networks that are `alive` at or below `lam` are such `latches`, and the `gradient`
      ‖∂h_T/∂h_0‖ of their seeds at the largest λ at which they still hold their bits, median; None without any.
    """
    found = []
    for T, cold in sorted(diagram.cold.items()):
        small = cold.alive & (cold.l2 <= lam)
        latch = small & (cold.gradient < below)
        last = cold.l2.where(cold.alive).max("l2")
        after = cold.gradient.where((cold.l2 == last) & latch.any("l2"))
        counts = {"latches": int(latch.sum()), "alive": int(small.sum())}
        gradient = float(after.median()) if latch.any() else None
        found.append({"num_steps": T, "lam": lam, **counts, "gradient": gradient})
    return found


def _told_latch(one: dict[str, Any]) -> str:
    told = (
        "T = {num_steps}: {latches} of {alive} networks that hold their bits at λ ≤ {lam:g} do so with "
        "‖∂h_T/∂h_0‖ < 0.05"
    )
    if one["gradient"] is not None:
        told += "; the same seeds at their largest λ alive: {gradient:.2g} (median)"
    return told.format(**one)


def control_table(found: Controls) -> str:
    """All controls as text."""
    if not found.cold:
        return "controls: none asked for"
    steps = list(next(iter(found.cold.values())))
    fall = f"T = {steps[-1]} over T = {steps[0]}"
    falls = {name: interval(one) for name, one in found.fall.items()}
    names = (f"λ_cold, T = {T}" for T in steps)
    header = (f"cold start, g = {GAIN}", *names, fall, "largest loss alive")
    rows = [
        (name, *(interval(by[T]) for T in steps), falls.get(name, "–"), f"{found.edge[name]:.2f}")
        for name, by in found.cold.items()
    ]
    lines = [text_table(header, rows), ""]
    depths = {1: BASE, 2: "depth 2", 4: "depth 4"}
    told = [f"depth {depth} {falls[name]}" for depth, name in depths.items() if name in falls]
    if told:
        law = f"the law at depth 1: {law_fall(steps[0], steps[-1]):.2g}"
        lines.append(f"λ_cold at {fall}: {', '.join(told)}; {law}")
    lines += [f"T = {T}: {_told_history(one)}" for T, one in found.history.items()]
    lines += [f"T = {T}: {_told_scaled(one)}" for T, one in found.scaled.items()]
    lines += [f"T = {T}: {_told_duration(one)}" for T, one in found.duration.items()]
    return "\n".join(lines)


def _told_history(one: Any) -> str:
    return (
        f"λ switched on after training destroys the memory at {interval(one.lam_on)}, in {one.dead.num} networks. Back "
        f"after {one.updates_off} updates at λ = 0: of those at W = 0, {_share(one.collapsed)}; of the others, "
        f"{_share(one.others)}"
    )


def _share(of: Returned) -> str:
    return f"{of.revived} of {of.num}" + (f" (95 %: at most {of.high:.1%})" if of.num else "")


def _told_scaled(one: Any) -> str:
    penalised, scaled = (
        f"ρ = {rho:.3f}, bits {bits:.2f}, ‖∂h_T/∂h_0‖ = {gradient:.3g}"
        for rho, bits, gradient in zip(one.rho, one.bits, one.gradient, strict=True)
    )
    return (
        f"trained at λ = {one.lam:g}, ‖W_hh‖ = {one.frobenius:.2f}, {penalised}; trained at λ = 0 (‖W_hh‖ = "
        f"{one.frobenius_free:.2f}) and scaled to that norm: {scaled}"
    )


def _told_duration(one: Any) -> str:
    told = "; ".join(f"{updates}: {interval(at)}" for updates, at in one.lam_cold.items())
    where = f" (λ = {one.lost_lams[0]:.2g} to {one.lost_lams[-1]:.2g})" if one.lost else ""
    return (
        f"λ_cold by number of updates: {told}. Of {one.alive} networks that hold their bits at {one.at} updates, "
        f"{one.lost} have lost them at {one.until}{where}; {one.gained} have come to hold them"
    )
