"""A fake host for the programs that roles install: files in a temporary folder, commands recorded and answered."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ACTIVE = "ActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=0\n"

# Commands that only look; every other one counts as a change.
READ_ONLY = (
    ("systemctl", "show"), ("systemctl", "is-active"), ("systemctl", "is-enabled"), ("journalctl",),
    ("docker", "image", "inspect"), ("docker", "image", "ls"), ("docker", "container", "inspect"),
    ("docker", "network", "inspect"), ("docker", "logs"),
)  # fmt: skip


@dataclass
class FakeHost:
    """Stands in for `vantage_unit.run`.

    `answers` maps the beginning of a command to its output, longest match first; `failing` has beginnings of commands
    that fail.
    """

    root: Path
    calls: list[tuple[str, ...]] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)

    def run(self, *argv: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        self.calls.append(argv)
        command = " ".join(argv)
        matches = [start for start in self.answers if command.startswith(start)]
        stdout = self.answers[max(matches, key=len)] if matches else ""
        failed = any(command.startswith(start) for start in self.failing)
        return subprocess.CompletedProcess(argv, int(failed), stdout, "it failed" if failed else "")

    @property
    def changes(self) -> list[tuple[str, ...]]:
        """The recorded commands that change something, each as a whole argument list."""
        return [argv for argv in self.calls if not any(argv[: len(start)] == start for start in READ_ONLY)]

    @property
    def commands(self) -> list[str]:
        """The same, joined by spaces."""
        return [" ".join(argv) for argv in self.changes]

    def files(self) -> dict[str, bytes]:
        """Every file below the root with its content."""
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    @property
    def units(self) -> Path:
        return self.root / "UNITS"

    def write_unit(self, service: str, text: str) -> Path:
        path = self.units / f"vantage-{service}.service"
        path.write_text(text, encoding="utf-8")
        return path
