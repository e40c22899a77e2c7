"""vantage_probation.py: the minute after a deployment."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import vantage_probation
import vantage_unit
from host_programs import ACTIVE, FakeHost, app_unit
from vantage_app import main
from vantage_deploy import failure_path
from vantage_snapshots import save_snapshot


@pytest.fixture
def counts(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """What NRestarts of hello, and Docker's process id, are at each look, one a second; the last one stays."""
    found = {"restarts": [0], "docker": [1]}
    clock = iter(range(100000))
    monkeypatch.setattr(vantage_probation.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(vantage_probation.time, "sleep", lambda _: None)

    def following(name: str) -> int:
        return found[name].pop(0) if len(found[name]) > 1 else found[name][0]

    monkeypatch.setattr(vantage_probation, "restarts", lambda _: following("restarts"))
    monkeypatch.setattr(vantage_probation, "engine_pid", lambda: str(following("docker")))
    return found


@pytest.mark.parametrize(
    ("restarts", "docker", "is_rolled_back"),
    [
        ([0, 0, 0, 1, 1, 2], [1], True),
        ([0, 0, 0, 1], [1], False),
        ([5, 5, 0, 0, 1], [1], False),
        ([0, 0, 2, 2], [1, 1, 2], False),
        ([0], [1], False),
    ],
    ids=["ends twice", "ends once", "restarted by hand", "Docker restarted", "runs"],
)
def test_an_app_that_ends_again_and_again_after_the_swap_is_rolled_back(
    host: FakeHost,
    deployed: Path,
    counts: dict[str, list[int]],
    restarts: list[int],
    docker: list[int],
    is_rolled_back: bool,
) -> None:
    counts |= {"restarts": restarts, "docker": docker}
    assert main(["probation", "flask_app"]) == 0
    assert (deployed.read_text() == app_unit("hello:1")) is is_rolled_back
    assert ("hello" in vantage_unit.read_deployment("flask_app")["rollback"]) is is_rolled_back


def test_an_app_that_ended_by_itself_since_its_deployment_fails_the_run(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["journalctl"] = 'Traceback (most recent call last):\n  File "/app.py", line 3\nValueError: no\n'
    assert main(["check", "flask_app", "hello"]) == 0
    host.answers["systemctl show"] = ACTIVE.replace("NRestarts=0", "NRestarts=1")
    assert main(["check", "flask_app", "hello"]) == 1
    said = capsys.readouterr().err
    for word in ("hello", "1", "/app.py, line 3: ValueError: no", "rollback.yml"):
        assert said.count(word) >= 1
    assert main(["rollback"]) == 0
    host.answers["systemctl show"] = ACTIVE
    assert main(["check", "flask_app", "hello"]) == 1
    assert "hello:3" in capsys.readouterr().err


def test_a_probation_leaves_a_run_alone_that_replaces_the_apps(
    host: FakeHost, deployed: Path, counts: dict[str, list[int]]
) -> None:
    counts["restarts"] = [0, 0, 0, 1, 1, 2]
    save_snapshot("hello")
    assert main(["probation", "flask_app"]) == 0
    assert deployed.read_text() == app_unit("hello:3")


def test_a_probation_leaves_a_run_alone_that_began_while_it_waited(
    host: FakeHost, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter(["hello ended 2 times", ""])
    monkeypatch.setattr(vantage_probation, "watch", lambda _: next(reasons))

    @contextlib.contextmanager
    def lock():  # type: ignore[no-untyped-def]
        save_snapshot("hello")
        yield

    monkeypatch.setattr(vantage_probation, "apps_lock", lock)
    assert main(["probation", "flask_app"]) == 0
    assert deployed.read_text() == app_unit("hello:3")


def test_a_probation_that_cannot_roll_back_is_a_metric_until_the_next_deployment(
    host: FakeHost, deployed: Path, counts: dict[str, list[int]], applied: list[str]
) -> None:
    metrics = failure_path()
    counts["restarts"] = [0, 0, 0, 1, 1, 2]
    host.answers["docker image inspect --format {{.Id}} sha256:old"] = ""
    assert main(["probation", "flask_app"]) == 1
    assert 'vantage_app_rollback_failed{app="hello",name="vantage-hello.service"} 1\n' in metrics.read_text()
    assert metrics.stat().st_mode & 0o777 == 0o644
    save_snapshot("hello")
    deployed.write_text(app_unit("hello:4"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert not metrics.exists()
