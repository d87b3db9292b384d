"""What `experiments.memory_thresholds` prints: lines and tables of thresholds, the law, latches."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from experiments import _memory_theory as theory
from experiments._memory_runs import cost_of
from experiments._memory_statistics import Law
from experiments._report import text_table
from experiments._thresholds import interval


def line(diagram: Any, num_steps: int) -> str:
    """The thresholds of one T in one line."""
    parts = [
        f"λ_cold(g = {gain:g}) {interval(found)}"
        for (T, gain), found in sorted(diagram.lam_cold.items())
        if num_steps == T
    ]
    parts.append(f"λ_c {interval(diagram.lam_c[num_steps])}")
    parts.append(f"λ_s {interval(diagram.lam_s[num_steps])}")
    return ", ".join(parts)


def law_lines(law: Law) -> str:
    """The fitted law in words."""
    a, b, d = law.free
    free = (
        f"{np.exp(a):.3f} T^{b:.2f} g^({d:.3f} (T−2))" if np.isfinite(d) else "too few thresholds"
    )
    return (
        f"law: λ_cold = c T g^(T−2), c = {law.constant:.3f} [{law.low:.3f}, {law.high:.3f}] from {law.num} thresholds, "
        f"scatter of ln λ {law.residual:.2f}\nfitted freely: {free}"
    )


def prediction_lines(predictions: dict[str, Any]) -> str:
    """The predictions, before anything of them is run."""
    cold = [
        f"λ_cold(T = {p['T']}, g = {p['gain']:g}) {p['predicted']:.3g}" for p in predictions["cold"]
    ]
    warm = [
        f"{p['threshold'].replace('lam', 'λ')}(T = {p['T']}) {p['predicted']:.3g}"
        for p in predictions["warm"]
    ]
    return "predicted, not yet run: " + (", ".join(cold + warm) or "nothing")


def threshold_table(diagrams: dict[str, Any]) -> str:
    """Every threshold beside the linear network's theory."""
    rows = []
    for name, diagram in diagrams.items():
        for T in sorted(diagram.warm):
            rows.append(
                (
                    name,
                    str(T),
                    interval(diagram.lam_c[T]),
                    f"{theory.network_switch(T, pair=True):.2f}, {theory.network_switch(T):.2f}",
                    interval(diagram.lam_s[T]),
                    f"{theory.network_spinodal(T, pair=True):.2f}, {theory.network_spinodal(T):.2f}",
                    f"{kind(diagram.warm[T]):.2f}",
                    f"{last_alive(diagram, T):.3g}",
                )
            )
    header = (
        "",
        "T",
        "λ_c",
        "linear theory: pair, real",
        "λ_s",
        "linear theory: pair, real",
        "‖W‖²/ρ²",
        "any alive",
    )
    notes = (
        "λ_c and λ_s are those of the solution that the path is in; ‖W_hh‖²/ρ² at its last λ alive (median): 1 for "
        "one real eigenvalue, 2 for a pair.\nany alive: the largest λ at which a network held its bits, cold or up"
    )
    return text_table(header, rows) + "\n" + notes


def kind(warm: Any) -> float:
    """‖W_hh‖² / ρ² at the last λ alive on the way up, median over paths."""
    counts = warm.alive[0].sum(axis=0)
    last = [(count - 1, seed) for seed, count in enumerate(counts) if count]
    if not last:
        return float("nan")
    cost = cost_of(warm)
    return float(np.median([cost[place] for place in last]))


def last_alive(diagram: Any, num_steps: int) -> float:
    """The largest λ at which any network held its bits."""
    warm = diagram.warm[num_steps]
    found = [warm.lams[warm.alive[0].any(axis=1)].max(initial=0.0)]
    for (T, _), (cold, place) in diagram.cold.items():
        if num_steps == T:
            found.append(cold.lams[cold.alive[:, place].any(axis=1)].max(initial=0.0))
    return float(max(found))


def as_entries(diagram: Any) -> dict[str, Any]:
    """Thresholds for summary.json."""
    return {
        "cold": [
            {"T": T, "gain": gain, **found._asdict()}
            for (T, gain), found in diagram.lam_cold.items()
        ],
        "switch": [{"T": T, **found._asdict()} for T, found in diagram.lam_c.items()],
        "spinodal": [{"T": T, **found._asdict()} for T, found in diagram.lam_s.items()],
    }


class Latches(NamedTuple):
    """Networks that hold their bits while ‖∂h_T/∂h_0‖ is below 0.05: the memory is a latch.

    Attributes:
      num_steps: T.
      lam: λ at or below which they are counted.
      latches: how many, of those.
      alive: networks at these λ that hold their bits.
      gradient: median ‖∂h_T/∂h_0‖ of the latches' seeds at the largest λ at which they still hold their bits.
    """

    num_steps: int
    lam: float
    latches: int
    alive: int
    gradient: float | None


def latches(diagram: Any, *, below: float = 0.05, lam: float = 1e-3) -> list[Latches]:
    """Latches at small λ, by T, and what more λ makes of them."""
    found = []
    for T in sorted({T for T, _ in diagram.cold}):
        total, held, after = 0, 0, []
        for cold, measured in diagram.measured_cold(T):
            small = cold.alive & (cold.lams <= lam)[:, None, None]
            latch = small & (measured.gradient < below)
            total, held = total + int(latch.sum()), held + int(small.sum())
            for gain, seed in np.argwhere(latch.any(axis=0)):
                last = np.flatnonzero(cold.alive[:, gain, seed])[-1]
                after.append(measured.gradient[last, gain, seed])
        found.append(Latches(T, lam, total, held, float(np.median(after)) if after else None))
    return found


def latch_lines(diagram: Any) -> str:
    """The latches in words."""
    lines = []
    for one in latches(diagram):
        text = (
            f"T = {one.num_steps}: {one.latches} of {one.alive} networks that hold their bits at λ ≤ {one.lam:g} do so "
            "with ‖∂h_T/∂h_0‖ < 0.05"
        )
        if one.gradient is not None:
            text += f"; the same seeds at their largest λ alive: {one.gradient:.2g} (median)"
        lines.append(text)
    return "\n".join(lines)
