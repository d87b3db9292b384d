"""A claim: one statement, who made it, and what was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments._harness.tables import text_table


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
        holds: whether it holds; None where `measured` is.

    >>> Claim.close("loss", 1.0, 1.05, source="Keras", tolerance=0.1).holds
    True
    >>> Claim.at_most("ARV", 0.11, None, source="Tong 1980").holds is None
    True
    """

    claim: str
    source: str
    expected: float | str | None
    tolerance: float | None
    measured: float | str | None
    holds: bool | None

    def __post_init__(self) -> None:
        if self.measured is None and self.holds is not None:
            raise ValueError(f"claim {self.claim!r} says holds={self.holds} but nothing was measured: give holds=None.")
        if self.holds is not None:
            object.__setattr__(self, "holds", bool(self.holds))  # not numpy's, for JSON

    @classmethod
    def close(cls, claim: str, expected: float, measured: Any, *, source: str, tolerance: float) -> Claim:
        """`measured` is within `tolerance` of `expected`."""
        found = _number(measured)
        holds = None if found is None else abs(found - expected) <= tolerance
        return cls(claim, source, expected, tolerance, found, holds)

    @classmethod
    def at_most(cls, claim: str, expected: float, measured: Any, *, source: str) -> Claim:
        """`measured` is `expected` or less."""
        found = _number(measured)
        holds = None if found is None else found <= expected
        return cls(claim, source, f"at most {expected:g}", None, found, holds)

    @classmethod
    def at_least(cls, claim: str, expected: float, measured: Any, *, source: str) -> Claim:
        """`measured` is `expected` or more."""
        found = _number(measured)
        holds = None if found is None else found >= expected
        return cls(claim, source, f"at least {expected:g}", None, found, holds)


def claims_table(claims: Sequence[Claim]) -> str:
    """The claims as lines of text: claim, source, expected, measured, and whether it holds."""
    verdict = {True: "holds", False: "FAILS", None: "not measured"}
    rows = [
        (
            claim.claim,
            claim.source,
            _cell(claim.expected) + (f" ± {claim.tolerance:.3g}" if claim.tolerance else ""),
            _cell(claim.measured),
            verdict[claim.holds],
        )
        for claim in claims
    ]
    return text_table(("claim", "source", "expected", "measured", ""), rows)


def _number(measured: Any) -> float | None:
    """A scalar array as a number of Python."""
    return measured.item() if hasattr(measured, "item") else measured


def _cell(value: float | str | None) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else f"{value:.4g}"
