"""A claim: one statement, who made it, and what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from experiments._harness.tables import text_table

VERDICTS = ("holds", "fails", "not shown", "not measured")


def verdict(holds: bool | None, measured: float | str | None) -> str:
    """Which of `VERDICTS` a claim has."""
    unknown = VERDICTS[3] if measured is None else VERDICTS[2]
    return unknown if holds is None else VERDICTS[0] if holds else VERDICTS[1]


@dataclasses.dataclass(frozen=True)
class Claim:
    """One statement, who made it, and what this run measured.

    An experiment reports its claims whether they hold or not, and exits 0 either way. What is measured may be a scalar
    of NumPy or JAX.

    Attributes:
        claim: the statement, in a few words.
        source: paper, issue or tool that it comes from.
        expected: the number, or a few words where it is not one number ("at most 0.11").
        tolerance: how far `measured` may lie from `expected`; None where that has no meaning.
        measured: what this run found; None where it could not be measured (a peer is missing).
        holds: whether it holds; None where `measured` is, and where a test could not show it either way.

    >>> Claim("loss", "Keras").close(1.0, 1.05, tolerance=0.1).holds
    True
    >>> Claim("ARV", "Tong 1980").at_most(0.11, None).holds is None
    True
    """

    claim: str
    source: str
    expected: float | str | None = None
    tolerance: float | None = None
    measured: float | str | None = None
    holds: bool | None = None

    def __post_init__(self) -> None:
        if self.measured is None and self.holds is not None:
            raise ValueError(f"claim {self.claim!r} says holds={self.holds} but nothing was measured: give holds=None.")
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))  # not numpy's, for JSON

    def close(self, expected: float, measured: Any, *, tolerance: float) -> Claim:
        """`measured` is within `tolerance` of `expected`."""
        return self._measured(expected, measured, lambda found: abs(found - expected) <= tolerance, tolerance)

    def at_most(self, expected: float, measured: Any) -> Claim:
        """`measured` is `expected` or less."""
        return self._measured(f"at most {expected:g}", measured, lambda found: found <= expected)

    def at_least(self, expected: float, measured: Any) -> Claim:
        """`measured` is `expected` or more."""
        return self._measured(f"at least {expected:g}", measured, lambda found: found >= expected)

    def between(self, low: float, high: float, measured: Any) -> Claim:
        """`measured` is neither less than `low` nor more than `high`."""
        return self._measured(f"between {low:.3g} and {high:g}", measured, lambda found: low <= found <= high)

    def shown(self, test: Any, *, level: float = 0.05) -> Claim:
        """A test shows it: `p_better` is at most `level`. It fails if `p_worse` is; otherwise nothing is shown.

        Args:
            test: a comparison with `p_better` and `p_worse`, as `paired_bootstrap` returns it.
            level: of each side.
        """
        holds = True if test.p_better <= level else False if test.p_worse <= level else None
        return Claim(self.claim, self.source, f"p at most {level:g}", None, float(test.p_better), holds)

    @property
    def verdict(self) -> str:
        """In words: one of `VERDICTS`."""
        return verdict(self.holds, self.measured)

    def _measured(
        self, expected: float | str, measured: Any, test: Callable[[Any], Any], tolerance: float | None = None
    ) -> Claim:
        found = measured.item() if hasattr(measured, "item") else measured  # a number of Python, for JSON
        holds = None if found is None else test(found)
        return Claim(self.claim, self.source, expected, tolerance, found, holds)


def claims_table(claims: Sequence[Claim], *, full: bool = True) -> str:
    """The claims as lines of text: claim, source, expected, measured, and whether it holds.

    A run that is not full is too short for them, so none of them fails there.
    """
    failed = "FAILS" if full else "too short to tell"
    rows = [
        (
            claim.claim,
            claim.source,
            _cell(claim.expected) + (f" ± {claim.tolerance:.3g}" if claim.tolerance else ""),
            _cell(claim.measured),
            claim.verdict.replace("fails", failed),
        )
        for claim in claims
    ]
    return text_table(("claim", "source", "expected", "measured", ""), rows)


def _cell(value: float | str | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"
