"""Ticks of a logarithmic axis that also holds 0; imported only when a figure is drawn."""

from typing import Any

import numpy as np
from matplotlib.ticker import Formatter, Locator, LogFormatterMathtext, LogLocator


class _Wrapped:
    """A locator or formatter around another one, which looks at the same axis."""

    inner: Any

    def set_axis(self, axis):
        """Of both."""
        super().set_axis(axis)  # pyright: ignore
        self.inner.set_axis(axis)


class ZeroLocator(_Wrapped, Locator):
    """The ticks of a log axis right of the break, and optionally one at the place of 0."""

    def __init__(self, inner: LogLocator, zero: float | None, low: float, high: float, show: bool):
        self.inner, self.zero, self.low, self.high, self.show = inner, zero, low, high, show

    def __call__(self):
        """Tick places for the present view."""
        return self.tick_values(*self.axis.get_view_interval())  # pyright: ignore

    def tick_values(self, vmin, vmax):
        """Tick places between two limits."""
        low, high = self.low * (1 - 1e-9), self.high * (1 + 1e-9)
        found = [tick for tick in self.inner.tick_values(vmin, vmax) if low <= tick <= high]
        return [self.zero, *found] if self.show and self.zero is not None else found


class ZeroFormatter(_Wrapped, Formatter):
    """10ⁿ, and "0" at the place of 0."""

    def __init__(self, zero: float | None):
        self.zero = zero
        self.inner = LogFormatterMathtext(labelOnlyBase=False)

    def __call__(self, x, pos=None):
        """The label of one tick."""
        return "0" if x == self.zero else self.inner(x, pos)


class PlainLogFormatter(_Wrapped, Formatter):
    """0.1 in place of 10⁻¹ near 1; of the minor ticks 2 and 5 are labelled on short axes, more on very short ones."""

    def __init__(self, *, minor: bool = False):
        self.minor = minor
        self.inner = LogFormatterMathtext()

    def __call__(self, x, pos=None):
        """The label of one tick."""
        if x <= 0:
            return ""
        exponent = int(np.floor(np.log10(x) + 1e-9))
        digit = round(x / 10.0**exponent, 6)
        if self.minor:
            low, high = sorted(self.axis.get_view_interval())  # pyright: ignore
            shown = (2, 5) if low <= 0 or high / low > 12 else (2, 3, 5)
            if low <= 0 or high / low > 50 or (digit not in shown and high / low > 3):
                return ""
        if 1e-3 * (1 - 1e-9) <= x <= 1e4 * (1 + 1e-9):
            return f"{x:g}"
        return self.inner(x, pos) if digit == 1 else f"${digit:g}\\times10^{{{exponent}}}$"
