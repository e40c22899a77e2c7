"""Shows which image and which step is running, and for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console


class Progress:
    """Progress of `total` images: one live line on a terminal, else a line a step."""

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
        is_log = not self._console.is_terminal
        if is_log:
            self.note(line)
        columns = (progress.TextColumn("{task.description}", markup=False), progress.TimeElapsedColumn())
        with progress.Progress(*columns, console=self._console, transient=True, disable=is_log) as live:
            live.add_task(line)
            yield

    def done(self, text: str) -> None:
        """Print what became of the current image."""
        self.note(f"[{self._number}/{self._total}] {self._name}: {text} ({time.monotonic() - self._began:.0f} s)")

    def note(self, text: str) -> None:
        self._console.print(text)
