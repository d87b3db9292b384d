"""The progress bar of a sweep."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any


class Bar:
    """Counts lanes, and parts of lanes that are under way, on anything longer than a few seconds."""

    def __init__(self, total: int, *, shown: bool):
        from tqdm import tqdm

        self._bar: Any = tqdm(
            total=total, unit="lane", desc="sweep", delay=3, miniters=0, disable=not shown
        )
        self._lanes = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.n = self._lanes
        self._bar.close()

    def show(self, part: float) -> None:
        """So many lanes more are done than were added, in all: a tenth is the least that is shown."""
        self._bar.n = round(self._lanes + float(part), 1)
        self._bar.update(0)

    def add(self, lanes: int) -> None:
        """So many lanes are finished."""
        self._bar.n, self._lanes = self._lanes, self._lanes + lanes
        self._bar.update(lanes)

    @contextlib.contextmanager
    def compiling(self, text: str) -> Iterator[None]:
        """Shows that something compiles; the rate is then that of running."""
        self._bar.set_description(text, refresh=False)
        with _shown(self._bar):
            yield
        self._bar.set_description("sweep", refresh=False)
        self._bar.unpause()


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
