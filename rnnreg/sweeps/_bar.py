"""The progress bar of a sweep."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class Bar:
    """Counts lanes, and parts of lanes that are under way, on anything longer than a few seconds."""

    def __init__(self, total: float, *, shown: bool, name: str = "sweep"):
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=_count(total), unit="lane", desc=name, delay=3, miniters=0, disable=not shown
        )
        self._lanes, self._name = 0.0, name

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.n = _count(self._lanes)
        self._bar.close()

    def show(self, part: float) -> None:
        """So many lanes more are done than were added, in all: a tenth is the least that is shown."""
        self._bar.n = round(self._lanes + float(part), 1)
        self._bar.update(0)

    def add(self, lanes: float) -> None:
        """So many lanes are finished, or so much of lanes that another stage goes on with."""
        before, self._lanes = _count(self._lanes), self._lanes + lanes
        self._bar.n = before
        self._bar.update(_count(self._lanes) - before)

    @contextlib.contextmanager
    def compiling(self, text: str) -> Iterator[None]:
        """Shows that something compiles; the rate is then that of running."""
        self._bar.set_description(text, refresh=False)
        with _shown(self._bar):
            yield
        self._bar.set_description(self._name, refresh=False)
        self._bar.unpause()


def _count(lanes: float) -> float:
    """A number of lanes as it is shown: whole, or with a tenth.

    >>> _count(3.0), _count(2.34)
    (3, 2.3)
    """
    return int(lanes) if float(lanes).is_integer() else round(lanes, 1)


@contextlib.contextmanager
def _shown(bar: Any) -> Iterator[None]:
    """Shows a bar that does not move, and its time, once a second after the bar's delay."""

    def show():
        seconds = bar.delay
        while not over.wait(seconds):
            bar.refresh()
            bar.delay, seconds = 0, 1.0  # it has been shown, so it is to be closed

    over = threading.Event()
    thread = threading.Thread(target=show, daemon=True)
    if not bar.disable:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if not bar.disable:
            thread.join()
