"""Shows which image and which step is running, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

# Between two lines of one step in a log: some CI servers end a job that is silent for ten minutes.
REMINDER_SECONDS = 60.0


class Progress:
    """Progress of `total` images: one live line on a terminal, else a line per step and a reminder each minute."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._total = total
        self._number = 0
        self._name = ""
        self._began = time.monotonic()

    def begin(self, name: str) -> None:
        self._number, self._name, self._began = self._number + 1, name, time.monotonic()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        line = f"[{self._number}/{self._total}] {self._name}: {text}"
        if self._console.is_terminal:
            columns = (progress.TextColumn("{task.description}", markup=False), progress.TimeElapsedColumn())
            with progress.Progress(*columns, console=self._console, transient=True) as live:
                live.add_task(line)
                yield
            return
        ended = threading.Event()
        reminder = threading.Thread(target=self._remind, args=(line, ended), daemon=True)
        reminder.start()
        try:
            yield
        finally:
            ended.set()
            reminder.join()

    def _remind(self, line: str, ended: threading.Event) -> None:
        self.note(line)
        while not ended.wait(REMINDER_SECONDS):
            self.note(f"{line} ({time.monotonic() - self._began:.0f} s)")

    def done(self, text: str) -> None:
        """Print what became of the current image."""
        self.note(f"[{self._number}/{self._total}] {self._name}: {text} ({time.monotonic() - self._began:.0f} s)")

    def note(self, text: str) -> None:
        self._console.print(text)
