"""Shows which image and which step is running, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

# Between two lines about one step where the output is not a terminal, such as a CI log.
REMINDER_SECONDS = 20.0


@dataclass
class Step:
    """One step of an image; `detail` says how far it is."""

    title: str
    detail: str = ""
    began: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        elapsed = time.monotonic() - self.began
        return (
            self.title + (f", {elapsed:.0f} s" if elapsed >= 1 else "") + (f" – {self.detail}" if self.detail else "")
        )

    def __rich__(self) -> Text:
        return Text(str(self), no_wrap=True, overflow="ellipsis")


class Progress:
    """Progress of `total` images: one live line on a terminal, else a line a step and a reminder now and then."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._total = total
        self._number = 0
        self._name = ""
        self._began = time.monotonic()

    def begin(self, name: str) -> None:
        self._number, self._name, self._began = self._number + 1, name, time.monotonic()

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        step = Step(f"[{self._number}/{self._total}] {self._name}: {text}")
        if self._console.is_terminal:
            with Live(step, console=self._console, transient=True):
                yield step
            return
        ended = threading.Event()

        def remind() -> None:
            while not ended.wait(REMINDER_SECONDS):
                self.note(str(step))

        self.note(str(step))
        threading.Thread(target=remind, daemon=True).start()
        try:
            yield step
        finally:
            ended.set()

    def done(self, text: str) -> None:
        """Say what became of the current image."""
        self.note(f"[{self._number}/{self._total}] {self._name}: {text} ({time.monotonic() - self._began:.0f} s)")

    def note(self, text: str) -> None:
        self._console.print(text)
