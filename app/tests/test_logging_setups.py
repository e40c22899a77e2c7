"""Each line is written once, with its ids, in whatever way an app configures logging and wherever it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from served import environment

REQUEST = (
    "import logging_app; print(logging_app.create_app().test_client().get('/').headers['X-Request-ID'], flush=True)"
)


def run(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    settings = {"OTEL_TRACES_EXPORTER": "none", **settings}
    arguments: dict[str, Any] = {"env": environment(**settings), "capture_output": True, "text": True, "timeout": 60}
    return subprocess.run([sys.executable, *command], check=False, **arguments)


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    "how",
    [
        "early", "basic-after", "root:before", "root:after", "root-stdout:after", "app-logger:before",
        "app-logger-alone:after", "no-handlers:after",
    ],
)  # fmt: skip
def test_line_is_written_once_with_ids_and_fields(how: str) -> None:
    result = run("-c", REQUEST, HOW=how)
    output = result.stdout + result.stderr
    assert output.count("a line of the view") == 1, output
    line, access = lines_of(result.stdout)[-2:]
    request_id = next(text for text in result.stdout.splitlines() if not text.startswith("{"))
    assert line["request_id"] == access["request_id"] == request_id
    assert (line["logger"], line["order_id"], line["extra_level"]) == ("logging_app", 5, "gold")
    assert len(line["trace_id"]) == 32


def test_other_handlers_of_the_app_stay(tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    run("-c", REQUEST, HOW="file", FILE=str(file))
    assert file.read_text() == "a line of the view\n"


def test_output_of_a_flask_command_has_no_log_lines() -> None:
    result = run("-m", "flask", "--app", "logging_app:create_app", "export")
    assert result.stdout == "a,b\n"
    assert [line["message"] for line in lines_of(result.stderr)] == ["exporting"]


def test_lines_go_to_stderr_under_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(
        "import logging_app\n"
        "def test_theirs(caplog):\n"
        "    app = logging_app.create_app()\n"
        "    assert app.test_client().get('/').data == b'ok'\n"
        "    assert [(r.message, r.order_id) for r in caplog.records] == [('a line of the view', 5)]\n"
    )
    result = run("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert lines_of(result.stdout) == []
    assert [line["message"] for line in lines_of(result.stderr)] == ["a line of the view", "GET / 200"]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_of_multiprocessing_write_their_lines(how: str) -> None:
    result = run("-m", "logging_app", HOW=how)
    assert sorted(line["message"] for line in lines_of(result.stdout)) == ["line 0", "line 1", "line 2"], result


def test_child_of_a_fork_writes_its_lines() -> None:
    result = run("-m", "logging_app", HOW="fork-os")
    assert [line["message"] for line in lines_of(result.stdout)] == ["line 1"], result
