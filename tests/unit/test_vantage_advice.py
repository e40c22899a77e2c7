"""What vantage_app.py finds in the log of an app that did not start."""

from __future__ import annotations

import json

import pytest
from vantage_advice import Container, advise, find_cause

TRACEBACK = """\
starting
Traceback (most recent call last):
  File "/opt/vantage/bin/vantage-serve", line 8, in <module>
    sys.exit(main())
  File "/opt/vantage/lib/python3.13/site-packages/flask_vantage/serve.py", line 41, in load_app
    module = importlib.import_module(module_name)
  File "/srv/app/board/store.py", line 12, in <module>
    import psycopg
  File "/usr/lib/python3.13/importlib/__init__.py", line 90, in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
{error}
"""
HERE = Container("/srv/app", "10001:10001")


def traceback(error: str) -> str:
    return TRACEBACK.format(error=error)


def test_the_cause_is_the_line_of_the_app_and_the_exception() -> None:
    found = find_cause(traceback("ModuleNotFoundError: No module named 'psycopg'"), "/srv/app")
    assert found == "board/store.py, line 12: ModuleNotFoundError: No module named 'psycopg'"


def test_the_cause_is_found_in_json_lines_too() -> None:
    line = json.dumps({"level": "error", "message": "failed", "exception_stacktrace": traceback("ValueError: no")})
    assert find_cause(line, "/srv/app") == "board/store.py, line 12: ValueError: no"


def test_the_cause_is_that_of_the_last_traceback() -> None:
    log = traceback("ValueError: first") + "retrying\n" + traceback("ValueError: second").replace("12", "13")
    assert find_cause(log, "/srv/app") == "board/store.py, line 13: ValueError: second"


def test_a_file_beside_the_folder_keeps_its_path() -> None:
    log = traceback("ValueError: no").replace("/srv/app/", "/srv/apple/")
    assert find_cause(log, "/srv/app").startswith("/srv/apple/")


@pytest.mark.parametrize("frame", ['File "<frozen os>", line 717, in __getitem__', "raise KeyError(key) from None"])
def test_a_missing_environment_variable_is_named_with_both_keys(frame: str) -> None:
    text = advise(f"{TRACEBACK.format(error=frame)}KeyError: 'GATE_SECRET'\n", HERE)
    for word in ("GATE_SECRET", "flask_app_environment", "flask_app_env_file"):
        assert word in text


@pytest.mark.parametrize("log", ["", "killed\n", 'File "x.py" is missing\n', "{not json\n", "[1]\n"])
def test_a_log_without_a_traceback_has_no_cause(log: str) -> None:
    assert find_cause(log, "/srv/app") == ""


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 30] Read-only file system: 'logs'", ["/srv/app/logs", "data", "writable"]),
        ("OSError: [Errno 30] Read-only file system: '/srv/app/uploads/x.png'", ["/srv/app/uploads ", "data", "writable"]),
        ("OSError: [Errno 30] Read-only file system: 'app.db'", ["data", "writable", "directory of its own"]),
        ("OSError: [Errno 30] Read-only file system: '/.cache'", ["HOME", "environment"]),
        ("mkdir: cannot create directory ‘/var/run/x’: Read-only file system", ["/var/run/x", "writable"]),
        ("sh: 1: cannot create /srv/app/out/list: Read-only file system", ["/srv/app/out/list", "writable"]),
        ('nginx: [emerg] mkdir() "/var/cache/nginx" failed (30: Read-only file system)', ["/var/cache/nginx", "writable"]),
        ("PermissionError: [Errno 13] Permission denied: '/logs'", ["/logs", "10001:10001", "data", "writable", "user"]),
        ("sqlite3.OperationalError: unable to open database file", ["SQLite", "data"]),
        ("ImportError: cannot import name 'Container' from 'collections' (/usr/lib/python3.13/collections/__init__.py)", ["collections", "pins"]),
        ("ImportError: cannot import name 'soft_unicode' from 'markupsafe' (/opt/app/lib/python3.13/site-packages/markupsafe/__init__.py)", ["pins"]),
        ("redis.exceptions.ConnectionError: Error -2 connecting to redis:6379. Name or service not known.", ["environment", "vantage_network_gateway"]),
        ("redis.exceptions.ConnectionError: Error 99 connecting to localhost:6379. Cannot assign requested address.", ["environment"]),
        ("sqlite3.OperationalError: no such table: post", ["before_start", "health_path"]),
        ('psycopg.errors.UndefinedTable: relation "post" does not exist', ["before_start", "health_path"]),
        ("KeyError: 'getpwuid(): uid not found: 10001'", ["user", "passwd"]),
        (traceback("ModuleNotFoundError: No module named 'psycopg'"), ["psycopg", "requirements", "flask_app_object"]),
        ("Error: No such command 'db'.", ["python3 -m flask"]),
        (
            '  File "<frozen os>", line 717, in __getitem__\n    raise KeyError(key) from None\nKeyError: \'DB_URL\'',
            ["DB_URL", "environment"],
        ),
    ],
)  # fmt: skip
def test_advice_names_the_key_that_mends_it(log: str, words: list[str]) -> None:
    found = advise(log + "\n", HERE)
    for word in words:
        assert word in found


def test_advice_is_about_the_exception_that_ended_the_app() -> None:
    survived = "could not write cache: [Errno 30] Read-only file system: '/srv/app/cache'\n"
    found = advise(survived + traceback("httpx.ConnectError: [Errno -2] Name or service not known"), HERE)
    assert "vantage_network_gateway" in found
    assert "/srv/app/cache" not in found


@pytest.mark.parametrize("log", ["", "KeyError: 'name'\n", "listening on port 8000\n", "user: permission granted\n"])
def test_no_advice_is_given_for_what_is_not_recognised(log: str) -> None:
    assert advise(log, HERE) == ""
