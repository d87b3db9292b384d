"""Ctrl-C and SIGTERM while a sweep runs: they stop it between two blocks, and later ones wait until all is put away."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_TAKEN = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Signals:
    """A context in which signals raise only inside `listening`, and wait elsewhere.

    SIGINT raises a `KeyboardInterrupt` and SIGTERM a `SystemExit` with the status 143, which is 128 + 15. The third
    signal raises anywhere: nobody has to wait for ever. A signal with a handler of the user's own is left to that.
    Outside of the main thread, which alone gets signals, nothing changes.
    """

    def __init__(self) -> None:
        self._listening, self._waiting, self._count = False, 0, 0
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number, usual in _TAKEN.items():
                if signal.getsignal(number) is usual:
                    self._former[number] = usual
                    signal.signal(number, self._come)
        return self

    def __exit__(self, *error: object) -> None:
        for number, usual in self._former.items():
            signal.signal(number, usual)  # type: ignore[arg-type]

    def _come(self, number: int, frame: FrameType | None) -> None:
        self._waiting, self._count = self._waiting or number, self._count + 1
        if self._listening or self._count > 2:
            self.answer()

    def answer(self) -> None:
        """Raises what a signal asks for, if one has come."""
        number, self._waiting, self._listening = self._waiting, 0, False
        if number:
            raise SystemExit(128 + number) if number == signal.SIGTERM else KeyboardInterrupt

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside of it a signal is answered at once, and at the beginning one that came before."""
        try:
            self._listening = True
            if self._waiting:
                self.answer()
            yield
        finally:
            self._listening = False
