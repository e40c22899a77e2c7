"""What the tests ask of the machine, in one place."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
# Beside the Python that runs the tests, so that no PATH has to say where.
BIN = Path(sys.executable).parent


def play(inventory: str, name: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook of the repository; return the finished process with its output."""
    given = ["-e", json.dumps(variables)] if variables else []
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONPATH": str(ROOT / "tools"),
    }
    return subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", inventory, str(ROOT / name), *arguments, *given],
        check=False, capture_output=True, text=True, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a run that must succeed."""
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """Return the output of a run that must fail and name `words`, with single spaces."""
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0, output
    for word in words:
        assert word in output, output[-3000:]
    return output


class Machine:
    """A host that runs the stack."""

    def __init__(self, host: Any, engine_address: str = "127.0.0.1") -> None:
        self.host = host
        self.engines = f"http://{engine_address}"

    def sh(self, command: str) -> str:
        """Standard output of a shell command; fails with all it said when its status is not 0."""
        result = self.host.run(command)
        assert result.rc == 0, f"{command}\nexit {result.rc}\n{result.stdout}\n{result.stderr}"
        return str(result.stdout)

    def try_sh(self, command: str) -> str:
        """Standard output, whatever the status."""
        return str(self.host.run(command).stdout)

    @property
    def services(self) -> list[str]:
        """The services that have a unit, from the machine itself."""
        paths = self.sh("grep -l X-Vantage /etc/systemd/system/vantage-*.service").split()
        return [path.rsplit("/", 1)[1].removeprefix("vantage-").removesuffix(".service") for path in paths]

    def get(self, url: str, **parameters: Any) -> Any:
        """The JSON that a URL on the machine answers."""
        if parameters:
            url += "?" + urlencode(parameters)
        return json.loads(self.sh(f"curl -fsS --max-time 30 {shlex.quote(url)}"))

    def inspect(self, service: str) -> dict[str, Any]:
        """What Docker says of the service's container."""
        return dict(json.loads(self.sh(f"docker inspect vantage-{service}"))[0])

    def status(self) -> str:
        return self.try_sh("/usr/local/lib/vantage/vantage_unit.py status")

    def not_ready(self) -> list[str]:
        """The services that are not active and ready now."""
        return [
            line.split()[0] for line in self.status().splitlines() if " ready" not in line or " active " not in line
        ]

    def wait_ready(self, seconds: float = 60) -> float:
        """Waits until all services are ready; the seconds it took."""
        return wait(lambda: not self.not_ready(), seconds, self.explain)

    def explain(self) -> str:
        """The state of all services, and the journal of those that are not ready."""
        journals = [
            self.try_sh(f"journalctl --unit vantage-{service} --lines 15 --no-pager --output cat")
            for service in self.not_ready()
        ]
        return "\n".join([self.status(), *journals])

    def now(self) -> str:
        """Return the machine's time in seconds since 1970."""
        return self.sh("date +%s.%N").strip()

    @contextmanager
    def faults(self, **values: Any) -> Iterator[None]:
        """Inject faults into the warehouse, and remove them at the end."""
        url = "http://127.0.0.1:8001/faults"
        body = shlex.quote(json.dumps(values))
        self.sh(f"curl -fsS -o /dev/null -X PUT -H 'Content-Type: application/json' -d {body} {url}")
        try:
            yield
        finally:
            self.sh(f"curl -fsS -X DELETE {url}")

    def trace_id(self) -> str:
        """The trace id of one fresh request of the storefront."""
        head = self.sh("curl -fsS --max-time 10 -D - -o /dev/null http://127.0.0.1:8000/products")
        return next(line.split(": ")[1].strip() for line in head.splitlines() if line.lower().startswith("x-trace-id"))

    def log_lines(self, query: str, since: float, limit: int = 5000) -> list[tuple[int, str]]:
        """All lines of a LogQL query since a time (seconds since 1970), as (nanoseconds, line), oldest first."""
        lines: dict[tuple[int, str], None] = {}
        start = int(since * 1e9)
        while True:
            answer = self.get(
                f"{self.engines}:3100/loki/api/v1/query_range",
                query=query, start=start, end=int((time.time() + 60) * 1e9), limit=limit, direction="forward",
            )  # fmt: skip
            page = sorted((int(ns), line) for stream in answer["data"]["result"] for ns, line in stream["values"])
            fresh = [entry for entry in page if entry not in lines]
            lines |= dict.fromkeys(fresh)
            if len(page) < limit or not fresh:
                return list(lines)
            start = page[-1][0]

    def trace(self, trace_id: str) -> dict[str, Any]:
        """The trace, or nothing where Jaeger does not know it."""
        text = self.try_sh(f"curl -sS --max-time 10 {self.engines}:16686/api/traces/{trace_id}")
        data = json.loads(text or "{}").get("data") or []
        return dict(data[0]) if data else {}

    def instant(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series that a PromQL query returns."""
        parameters: dict[str, Any] = {"query": query} | ({"time": at} if at else {})
        return list(self.get(f"{self.engines}:9090/api/v1/query", **parameters)["data"]["result"])


def wait(condition: Callable[[], Any], seconds: float, explain: Callable[[], str] = lambda: "") -> float:
    """Waits until the condition holds; the seconds it took. Fails with an explanation after `seconds`."""
    begin = time.monotonic()
    while not condition():
        took = time.monotonic() - begin
        assert took < seconds, f"not within {seconds} s\n{explain()}"
        time.sleep(0.3)
    return time.monotonic() - begin
