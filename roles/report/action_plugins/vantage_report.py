"""Asks the host's stores, says how far it is, and lets the package vantage_report draw and write on the controller."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import zlib
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

ROOT = pathlib.Path(__file__).resolve().parents[3]
DRAWS = ("matplotlib", "jinja2", "PIL")
ENGINES = ("prometheus", "loki", "jaeger")


class ActionModule(ActionBase):
    """See library/vantage_report.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if self._task.check_mode:
            return result | {"skipped": True, "msg": "check mode: nobody was asked and nothing was written"}
        if str(ROOT) not in sys.path:
            sys.path.insert(0, str(ROOT))
        from vantage_report import __main__ as report
        from vantage_report.collect import Collector, NothingAnswers

        arguments = self._task.args
        try:
            short, long = report.windows(str(arguments["short"]), str(arguments["long"]))
        except ValueError as error:
            return result | {"failed": True, "msg": f"{error}. Nothing was asked."}
        missing = [name for name in DRAWS if importlib.util.find_spec(name) is None]
        if missing:
            return result | {
                "failed": True,
                "msg": f"{sys.executable} has no {', '.join(missing)}, which draws the pictures. Use `make report`, or install "
                "matplotlib there. Nothing was asked.",
            }
        folder = ROOT / str(arguments["dir"])
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return result | {
                "failed": True,
                "msg": f"{folder} cannot be made: {error}. Set report_dir. Nothing was asked.",
            }
        addresses = {name: str(arguments[name]) for name in ENGINES}

        def transport(questions: Any) -> list[dict[str, Any]]:
            urls = [question.url(addresses) for question in questions]
            asked = self._execute_module("vantage_ask", {"urls": urls}, task_vars=task_vars)
            if "answers" not in asked:
                raise ConnectionError(asked.get("msg") or asked.get("module_stderr") or "the host could not be asked")
            return list(json.loads(zlib.decompress(base64.b64decode(asked["answers"]))))

        meta = {"grafana": arguments["grafana"], "host": (task_vars or {}).get("inventory_hostname", "")}
        try:
            data = Collector(transport, short, long, self._say).run(meta)
        except NothingAnswers as error:
            return result | {
                "failed": True,
                "msg": f"{error} Is the stack up? `make status` says. The former report, if any, is untouched.",
            }
        except ConnectionError as error:
            return result | {"failed": True, "msg": str(error)}
        return result | self._write(data, folder, bool(arguments["keep_data"]))

    def _say(self, text: str) -> None:
        Display().display(f"report: {text}")

    def _write(self, data: dict[str, Any], folder: pathlib.Path, keep: bool) -> dict[str, Any]:
        """Draw in a process of its own: its libraries have no business in Ansible's."""
        stored = folder / "data.json.gz"
        stored.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
        command = [sys.executable, "-m", "vantage_report", "--data", str(stored), "--out", str(folder)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        said = []
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line.rstrip())
                Display().display(line.rstrip())
        if process.returncode:
            return {
                "failed": True,
                "msg": f"The report could not be written: {' '.join(said[-3:])} The data is in {stored}.",
            }
        if not keep:
            stored.unlink()
        findings = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
        return {"changed": False, "report": str(folder / "report.html"), "findings": findings}
