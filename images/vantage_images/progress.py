"""Tell what is going on: which image, which step, since when, how many of how many."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO


@dataclass
class Ticking:
    """What the line says beside the step, while another thread keeps the line alive."""

    detail: str = ""


class Progress:
    """Progress on `stream`: one line that rewrites itself on a terminal, else a line now and then."""

    # Seconds between two lines of one step where the output is no terminal (a CI log).
    quiet_for = 20.0

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._total = total
        self._number = 0
        self._name = ""
        self._step = ""
        self._detail = ""
        self._began = self._step_began = self._spoke = time.monotonic()

    def image(self, name: str) -> None:
        """Begin with the next image."""
        self._number += 1
        self._name = name
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """Begin a step of the current image, and say so."""
        self._step, self._detail = text, ""
        self._step_began = time.monotonic()
        self._say()

    def tick(self, detail: str = "") -> None:
        """Still at it; call as often as convenient."""
        self._detail = detail
        pause = 0.5 if self._tty else self.quiet_for
        if time.monotonic() - self._spoke >= pause:
            self._say()

    @contextmanager
    def ticking(self) -> Iterator[Ticking]:
        """Keep the line alive while this thread waits for something that does not call `tick`."""
        shown = Ticking()
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.5):
                self.tick(shown.detail)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield shown
        finally:
            stop.set()
            thread.join()

    def done(self, text: str) -> None:
        """The current image is finished."""
        elapsed = time.monotonic() - self._began
        self._write(f"[{self._number}/{self._total}] {self._name}: {text} ({elapsed:.0f} s)", keep=True)

    def note(self, text: str) -> None:
        """One line that belongs to no step."""
        self._write(text, keep=True)

    def _say(self) -> None:
        elapsed = time.monotonic() - self._step_began
        since = f", {elapsed:.0f} s" if elapsed >= 1 else ""
        detail = f" – {self._detail}" if self._detail else ""
        self._write(f"[{self._number}/{self._total}] {self._name}: {self._step}{since}{detail}", keep=False)

    def _write(self, line: str, keep: bool) -> None:
        self._spoke = time.monotonic()
        if self._tty:
            self._stream.write(f"\r\033[K{line[:160]}" + ("\n" if keep else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
