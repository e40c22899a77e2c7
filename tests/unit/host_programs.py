"""A fake host for the programs that roles install: files in a temporary folder, commands recorded and answered."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ACTIVE = "ActiveState=active\nSubState=running\nUnitFileState=enabled\nNeedDaemonReload=no\nNRestarts=0\n"

VOLUME = "--volume=/var/lib/vantage/hello:/data"
# A line of a unit, and the command that it means.
BEFORE_START = 'BeforeStart="flask db upgrade && echo \\"done\\""\n'
COMMAND = 'flask db upgrade && echo "done"'

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


def app_unit(image: str, port: int = 8000, owner: str = "flask_app", volumes: str = VOLUME) -> str:
    """The unit file of hello, an app, or of another one."""
    return (
        "[Service]\n"
        "ExecStart=/usr/bin/docker run --rm --pull=never --log-driver=none \\\n"
        "  --name=vantage-hello --hostname=hello \\\n"
        f"  --network=vantage --network-alias=hello \\\n  --user=10001:10001 --read-only \\\n"
        f"  --publish=127.0.0.1:{port}:5000 \\\n"
        f"  {volumes} \\\n  --volume=/etc/vantage/secrets/hello:/run/secrets:ro \\\n"
        '  --env="GREETING=50%% of $$1 \\"each\\"" \\\n'
        f"  {image}\n"
        f"[X-Vantage]\nOwner={owner}\nImage={image}\nReadyUrl=http://127.0.0.1:{port}/health\nReadySeconds=1\n"
    )


def before_start_runs(host: FakeHost) -> list[tuple[str, ...]]:
    return [argv for argv in host.changes if argv[:2] == ("docker", "run") and "-c" in argv]
