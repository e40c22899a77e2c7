"""vantage_app.py, with systemd and Docker replaced by recorded answers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import vantage_app
import vantage_unit
from ansible.template import trust_as_template
from fakes import fake_program
from host_programs import FakeHost
from rendering import Host
from vantage_app import main
from vantage_unit import Unit, UnitError

VOLUME = "--volume=/var/lib/vantage/hello:/data"


def text(image: str, port: int = 8000, owner: str = "flask_app", volumes: str = VOLUME) -> str:
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


@pytest.fixture(autouse=True)
def no_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vantage_app.shutil, "chown", lambda *_: None)


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """The unit file of a new version."""
    path = tmp_path / "candidate"
    path.write_text(text("hello:2"))
    return path


# Canary


def test_canary_runs_without_ports_alias_and_data_of_the_running_version(host: FakeHost, tmp_path: Path) -> None:
    assert vantage_app.canary_arguments(Unit("hello", text("hello:2")), tmp_path) == [
        "--detach",
        "--log-driver=local",
        "--pull=never",
        "--name=vantage-hello-canary",
        "--hostname=hello",
        "--network=vantage",
        "--user=10001:10001",
        "--read-only",
        f"--volume={tmp_path}/0:/data",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
        '--env=GREETING=50% of $1 "each"',
        "hello:2",
    ]


def test_canary_mounts_only_read_only_volumes(tmp_path: Path) -> None:
    volumes = " ".join(f"--volume={one}" for one in ("/a:/b:ro,z", "/c:/d:z,ro", "/ro:/e:rw,z", "/ro:/f"))
    found = vantage_app.canary_arguments(Unit("hello", text("hello:2", volumes=volumes)), tmp_path)
    assert [word for word in found if word.startswith("--volume=/")] == [
        "--volume=/a:/b:ro,z",
        "--volume=/c:/d:z,ro",
        f"--volume={tmp_path}/0:/e",
        f"--volume={tmp_path}/1:/f",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
    ]


def test_canary_keeps_the_arguments_of_the_app(tmp_path: Path) -> None:
    command = ["--name=web", "--volume=/in/the/app", "--publish=x", "--rm"]
    unit = Unit("hello", text("hello:2").replace("  hello:2\n", f"  hello:2 {' '.join(command)}\n"))
    found = vantage_app.canary_arguments(unit, tmp_path)
    assert found[found.index("hello:2") + 1 :] == command


@pytest.mark.parametrize("reason", ["no app runs", "the app opts out"])
def test_no_canary_starts_where_it_is_not_needed(host: FakeHost, candidate: Path, reason: str) -> None:
    if reason == "no app runs":
        host.write_unit("loki", text("loki:1", owner="loki"))
    else:
        host.write_unit("hello", text("hello:1"))
        candidate.write_text(text("hello:2") + "Canary=no\n")
    assert main(["canary", "hello", str(candidate)]) == 0
    assert host.commands == []


def test_a_canary_that_ends_is_refused_and_removed(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    monkeypatch.setattr(vantage_app, "container_log", lambda _: "no such module")
    host.answers["docker container inspect"] = "exited 2 false 0\n"
    assert main(["canary", "hello", str(candidate)]) == 1
    printed = capsys.readouterr().err
    for word in ("hello", "hello:2", "status 2", "no such module"):
        assert word in printed
    remove, run, removed = host.changes
    assert run[:4] == ("docker", "run", "--detach", "--log-driver=local")
    assert run[-1] == "hello:2"
    assert remove == removed == ("docker", "rm", "--force", "--volumes", "vantage-hello-canary")


def test_canary_on_another_port_is_refused_with_that_port(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    host.answers["docker container inspect"] = "running 0 false 7\n"
    host.answers["docker container inspect --format {{range"] = "127.0.0.1\n"
    monkeypatch.setattr(vantage_unit, "listening_addresses", lambda _: ["0.0.0.0:8000"])
    monkeypatch.setattr(vantage_unit, "HOPELESS_SECONDS", 0.1)
    monkeypatch.setattr(vantage_app, "container_log", lambda _: "")
    candidate.write_text(text("hello:2").replace(":5000", ":9").replace("ReadySeconds=1", "ReadySeconds=60"))
    assert main(["canary", "hello", str(candidate)]) == 1
    printed = capsys.readouterr().err
    for word in ("Port 9 is closed", "8000", "container_port"):
        assert word in printed


# Rollback and deployment


def test_restore_restores_units_written_before_a_refused_one(host: FakeHost) -> None:
    installed = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    vantage_app.save_snapshot("world")
    installed.write_text(text("hello:2"))
    new = host.write_unit("world", text("world:1"))
    assert main(["restore"]) == 0
    assert installed.read_text() == text("hello:1")
    assert not new.exists()
    assert host.commands == ["systemctl disable --now vantage-world.service", "systemctl daemon-reload"]


def test_a_snapshot_of_an_interrupted_run_is_kept(host: FakeHost) -> None:
    installed = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    installed.write_text(text("hello:2"))
    vantage_app.save_snapshot("hello")
    assert vantage_app.snapshot_path("hello").read_text() == text("hello:1")


@pytest.fixture
def applied(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services that were applied, each with its image; version 2 of hello does not start."""
    found: list[str] = []

    def apply(service: str, check: bool = False) -> None:
        found.append(f"{service} {Unit.load(service).image}")
        if found[-1] == "hello hello:2":
            raise UnitError("hello did not start")

    monkeypatch.setattr(vantage_unit, "apply", apply)
    return found


def test_a_deployment_that_fails_restores_all(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = host.write_unit("shop", text("shop:1"))
    hello = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert shop.read_text() == text("shop:1")
    assert hello.read_text() == text("hello:1")
    assert applied == ["hello hello:2", "hello hello:1", "shop shop:1"]
    printed = capsys.readouterr().err
    for word in ("hello did not start", "Rolled back", "shop"):
        assert word in printed


def test_a_rollback_that_fails_names_the_services_that_are_lost(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:2"))
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "Rollback incomplete: hello" in capsys.readouterr().err


def test_a_rollback_restores_the_image_that_a_tag_pointed_to(host: FakeHost, applied: list[str]) -> None:
    host.write_unit("hello", text("hello:2"))
    host.answers["docker container inspect"] = "sha256:old\n"
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert "docker tag sha256:old hello:2" in host.commands


def test_a_deployment_releases_ports_before_others_take_them(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, old, new in (("one", 8000, 8001), ("two", 8001, 8000)):
        host.write_unit(name, text(f"{name}:1", old))
        vantage_app.save_snapshot(name)
        host.write_unit(name, text(f"{name}:1", new))
    monkeypatch.setattr(vantage_unit, "apply", lambda service, check=False: host.run("apply", service))
    assert main(["deploy", "flask_app", "one", "two"]) == 0
    assert host.commands[0] == "systemctl stop vantage-probation.service"
    assert host.commands[1:5] == [
        "systemctl stop vantage-one.service",
        "systemctl stop vantage-two.service",
        "apply one",
        "apply two",
    ]


def test_a_deployment_without_drift_asks_docker_for_image_ids_alone(
    host: FakeHost, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:1"))
    vantage_unit.pre_start("hello")
    vantage_unit.write_state("hello", vantage_unit.read_state("hello") | {"ready": True})
    host.calls.clear()
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert capsys.readouterr().out == ""
    assert [argv for argv in host.calls if argv[0] == "docker"] == [
        ("docker", "image", "inspect", "--format", "{{.Id}}", "hello:1")
    ]
    assert host.commands == []


def test_only_builds_that_no_unit_needs_are_removed(host: FakeHost) -> None:
    host.write_unit("hello", text("hello:1-0123456789ab"))
    host.answers["docker image ls"] = "hello:1-0123456789ab\nhello:1-ba9876543210\nhello:1\n"
    vantage_app.prune_builds([])
    assert host.commands == ["docker image rm hello:1-ba9876543210"]


def test_packages_are_kept_for_the_next_build_until_their_app_is_removed(host: FakeHost) -> None:
    host.write_unit("hello", text("vantage/hello:0123456789ab"))
    host.answers["docker image ls"] = "".join(
        f"{tag}\n" for tag in ("vantage/hello:packages-0123456789ab", "vantage/gone:packages-0123456789ab")
    )
    vantage_app.prune_builds([])
    assert host.commands == ["docker image rm vantage/gone:packages-0123456789ab"]


# Whatever fails


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xe4", 0, 1, "bad"), KeyboardInterrupt(), SystemExit(143)]
)
def test_whatever_fails_in_a_swap_the_app_that_ran_before_runs_again(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    found: list[str] = []

    def apply(service: str, check: bool = False) -> None:
        found.append(Unit.load(service).image)
        if found[-1] == "hello:2":
            raise error

    monkeypatch.setattr(vantage_unit, "apply", apply)
    hello = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:2"))
    try:
        assert main(["deploy", "flask_app", "hello"]) == 1
    except BaseException as raised:
        assert raised is error
    assert hello.read_text() == text("hello:1")
    assert found == ["hello:2", "hello:1"]
    assert not list(vantage_app.snapshot_folder().glob("*"))


def test_an_app_that_cannot_be_restored_does_not_keep_the_others_down(
    host: FakeHost, applied: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("another", text("another:1"))
    host.write_unit("hello", text("hello:2"))
    restore_file = vantage_app.restore_file

    def restore(service: str, content: str) -> None:
        if service == "another":
            raise OSError("no space left on device")
        restore_file(service, content)

    monkeypatch.setattr(vantage_app, "restore_file", restore)
    assert main(["deploy", "flask_app", "another", "hello"]) == 1
    assert applied == ["another another:1", "hello hello:2", "another another:1", "hello hello:2"]
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize("error", [UnitError("no"), SystemExit(143), ValueError("a bug")])
def test_whatever_fails_in_a_canary_it_is_removed_with_its_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    host.write_unit("hello", text("hello:1"))

    def fail(_: Unit) -> str:
        assert (vantage_app.canary_folder("hello") / "0").is_dir()
        raise error

    monkeypatch.setattr(vantage_app, "wait_for_canary", fail)
    with contextlib.suppress(SystemExit):
        assert main(["canary", "hello", str(candidate)]) == 1
    assert host.commands[-1] == "docker rm --force --volumes vantage-hello-canary"
    assert not vantage_app.canary_folder("hello").exists()


def test_what_a_killed_run_left_of_a_canary_is_not_its_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_unit("hello", text("hello:1"))
    left = vantage_app.canary_folder("hello") / "0/database"
    left.parent.mkdir(parents=True)
    left.touch()
    monkeypatch.setattr(vantage_app, "wait_for_canary", lambda _: "" if not left.exists() else "it is there")
    assert main(["canary", "hello", str(candidate)]) == 0


# What a refusal says


def refusal(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: str
) -> str:
    host.write_unit("hello", text("hello:1"))
    host.answers["docker image inspect --format {{.Config.WorkingDir}}"] = "/srv/app\n"
    monkeypatch.setattr(vantage_app, "container_log", lambda _: log)
    monkeypatch.setattr(vantage_app, "wait_for_canary", lambda _: "GET / answered 500")
    assert main(["canary", "hello", str(candidate)]) == 1
    return capsys.readouterr().err


def test_a_canary_says_that_it_has_no_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(host, candidate, monkeypatch, capsys, "something\n")
    for word in ("before_start", "health_path", "trial", "empty"):
        assert word in said
    candidate.write_text(text("hello:2", volumes="--volume=/a:/b:ro"))
    assert "before_start" not in refusal(host, candidate, monkeypatch, capsys, "something\n")


def test_a_refusal_says_what_mends_it_once_and_after_the_log(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(host, candidate, monkeypatch, capsys, "sqlite3.OperationalError: no such table: post\n")
    assert said.count("before_start:") == 1
    assert said.index("no such table") < said.index("Set before_start")
    assert "trial" not in said


def test_the_log_comes_before_the_port_where_nothing_listens(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["docker container inspect"] = "running 0 false 7\n"
    monkeypatch.setattr(vantage_unit, "listening_addresses", lambda _: [])
    said = refusal(host, candidate, monkeypatch, capsys, "waiting for the database\n")
    assert said.index("waiting for the database") < said.index("0.0.0.0:5000")


def test_a_log_that_is_not_utf8_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_program(tmp_path / "bin", "docker", r"printf 'Datenbank f\344llt aus\n' >&2", monkeypatch)
    assert vantage_app.container_log("any") == "Datenbank f\N{REPLACEMENT CHARACTER}llt aus"


# before_start

BEFORE = 'BeforeStart="flask db upgrade && echo \\"done\\""\n'
COMMAND = 'flask db upgrade && echo "done"'


def before_start_runs(host: FakeHost) -> list[tuple[str, ...]]:
    return [argv for argv in host.changes if argv[:2] == ("docker", "run") and "-c" in argv]


def test_before_start_runs_for_the_canary_with_its_own_data(
    host: FakeHost, candidate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.write_unit("hello", text("hello:1"))
    candidate.write_text(text("hello:2") + BEFORE)
    host.answers["docker wait"] = "0\n"
    monkeypatch.setattr(vantage_app, "wait_for_canary", lambda _: "")
    assert main(["canary", "hello", str(candidate)]) == 0
    (run,) = before_start_runs(host)
    assert run[-5:] == ("--name=vantage-hello-before-start", "--entrypoint=/bin/sh", "hello:2", "-c", COMMAND)
    data = f"--volume={vantage_app.canary_folder('hello')}/0:/data"
    for word in (data, "--volume=/etc/vantage/secrets/hello:/run/secrets:ro", "--user=10001:10001", "--read-only"):
        assert word in run
    canary = next(argv for argv in host.changes if "--name=vantage-hello-canary" in argv)
    assert data in canary


def test_before_start_runs_before_the_swap_with_the_data_of_the_app(host: FakeHost, applied: list[str]) -> None:
    hello = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:3") + BEFORE)
    host.answers["docker wait"] = "0\n"
    assert main(["deploy", "flask_app", "hello"]) == 0
    (run,) = before_start_runs(host)
    assert VOLUME in run
    assert "--publish=127.0.0.1:8000:5000" not in run
    assert applied == ["hello hello:3"]


def test_before_start_that_fails_leaves_everything_as_it_was(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hello = host.write_unit("hello", text("hello:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:3") + BEFORE)
    host.answers["docker wait"] = "4\n"
    monkeypatch.setattr(vantage_app, "container_log", lambda _: "no such revision")
    monkeypatch.setattr(vantage_unit, "apply", lambda service, check=False: None)
    assert main(["deploy", "flask_app", "hello"]) == 1
    assert hello.read_text() == text("hello:1")
    assert not [command for command in host.commands if command.startswith(("systemctl restart", "systemctl disable"))]
    said = capsys.readouterr().err
    for word in (COMMAND, "status 4", "no such revision", "before_start"):
        assert word in said


# Rollback of a deployment that succeeded


@pytest.fixture
def deployed(host: FakeHost, applied: list[str]) -> Path:
    """Version 3 of hello took the place of version 1."""
    hello = host.write_unit("hello", text("hello:1"))
    host.answers["docker container inspect"] = "sha256:old\n"
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    applied.clear()
    host.calls.clear()
    return hello


def test_rollback_is_one_command_and_its_own_reverse(host: FakeHost, deployed: Path, applied: list[str]) -> None:
    assert main(["rollback"]) == 0
    assert deployed.read_text() == text("hello:1")
    assert main(["rollback"]) == 0
    assert deployed.read_text() == text("hello:3")
    assert applied == ["hello hello:1", "hello hello:3"]
    assert "docker tag sha256:old hello:1" in host.commands


def test_rollback_ends_the_probation_and_runs_no_before_start(host: FakeHost, deployed: Path) -> None:
    assert main(["rollback"]) == 0
    assert not before_start_runs(host)
    assert [command for command in host.commands if "probation" in command] == [
        "systemctl stop vantage-probation.service"
    ]


def test_rollback_without_its_image_changes_nothing(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.answers["docker image inspect --format {{.Id}} sha256:old"] = ""
    assert main(["rollback"]) == 1
    assert "sha256:old" in capsys.readouterr().err
    assert deployed.read_text() == text("hello:3")


def test_rollback_of_a_deployment_of_secrets_says_that_it_restores_none(
    host: FakeHost, applied: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_unit("hello", text("hello:3"))
    host.answers |= {"docker container inspect": "sha256:3\n", "docker image inspect": "sha256:3\n"}
    assert main(["deploy", "flask_app", "hello"]) == 0
    capsys.readouterr()
    assert main(["rollback"]) == 1
    said = capsys.readouterr()
    assert "secrets" in said.err
    assert said.out == ""
    assert not vantage_app.snapshot_path("hello").exists()


def test_a_rollback_is_told_by_status_and_once_by_the_next_run(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback"]) == 0
    capsys.readouterr()
    vantage_unit.main(["status"])
    assert "hello:3" in capsys.readouterr().out
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert "hello:3" in capsys.readouterr().err
    vantage_unit.main(["status"])
    assert "hello:3" not in capsys.readouterr().out


def test_a_first_deployment_has_nothing_to_return_to(host: FakeHost, applied: list[str]) -> None:
    host.answers["systemctl show"] = "ActiveState=inactive\n"
    host.write_unit("hello", text("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert not [command for command in host.commands if "systemd-run" in command]
    assert main(["rollback"]) == 1


def test_a_deployment_starts_its_probation(host: FakeHost, applied: list[str]) -> None:
    host.write_unit("hello", text("hello:3"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    (command,) = [command for command in host.commands if command.startswith("systemd-run")]
    assert command.endswith("vantage_app.py probation flask_app")


@pytest.fixture
def counts(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """What NRestarts of hello, and Docker's process id, are at each look, one a second; the last one stays."""
    found = {"restarts": [0], "docker": [1]}
    clock = iter(range(100000))
    monkeypatch.setattr(vantage_app.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(vantage_app.time, "sleep", lambda _: None)

    def following(name: str) -> int:
        return found[name].pop(0) if len(found[name]) > 1 else found[name][0]

    monkeypatch.setattr(vantage_app, "restarts", lambda _: following("restarts"))
    monkeypatch.setattr(vantage_app, "engine_pid", lambda: str(following("docker")))
    return found


@pytest.mark.parametrize(
    ("restarts", "docker", "is_rolled_back"),
    [
        ([0, 0, 0, 1, 1, 2], [1], True),
        ([0, 0, 0, 1], [1], False),
        ([5, 5, 0, 0, 1], [1], False),
        ([0, 0, 0, 2, 2], [1, 1, 2], False),
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
    assert (deployed.read_text() == text("hello:1")) is is_rolled_back
    assert ("hello" in vantage_unit.read_deployment("flask_app")["rollback"]) is is_rolled_back


def test_a_probation_leaves_a_run_alone_that_replaces_the_apps(
    host: FakeHost, deployed: Path, counts: dict[str, list[int]]
) -> None:
    counts["restarts"] = [0, 0, 0, 1, 1, 2]
    vantage_app.save_snapshot("hello")
    assert main(["probation", "flask_app"]) == 0
    assert deployed.read_text() == text("hello:3")


def test_a_probation_leaves_a_run_alone_that_began_while_it_waited(
    host: FakeHost, deployed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = iter(["hello ended 2 times", ""])
    monkeypatch.setattr(vantage_app, "watch", lambda _: next(reasons))

    @contextlib.contextmanager
    def lock():  # type: ignore[no-untyped-def]
        vantage_app.save_snapshot("hello")
        yield

    monkeypatch.setattr(vantage_app, "apps_lock", lock)
    assert main(["probation", "flask_app"]) == 0
    assert deployed.read_text() == text("hello:3")


def test_a_probation_that_cannot_roll_back_is_a_metric_until_the_next_deployment(
    host: FakeHost, deployed: Path, counts: dict[str, list[int]], applied: list[str]
) -> None:
    metrics = vantage_app.failure_path()
    counts["restarts"] = [0, 0, 0, 1, 1, 2]
    host.answers["docker image inspect --format {{.Id}} sha256:old"] = ""
    assert main(["probation", "flask_app"]) == 1
    assert 'vantage_app_rollback_failed{app="hello",name="vantage-hello.service"} 1\n' in metrics.read_text()
    assert metrics.stat().st_mode & 0o777 == 0o644
    vantage_app.save_snapshot("hello")
    deployed.write_text(text("hello:4"))
    assert main(["deploy", "flask_app", "hello"]) == 0
    assert not metrics.exists()


# Check mode


@pytest.mark.parametrize("command", ["canary", "deploy", "restore"])
def test_check_mode_changes_nothing(
    host: FakeHost, candidate: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    hello = host.write_unit("hello", text("hello:1"))
    host.write_unit("old", text("old:1"))
    vantage_app.save_snapshot("hello")
    hello.write_text(text("hello:2"))
    before = host.files()
    words = {"canary": ["hello", str(candidate)], "deploy": ["flask_app", "hello"], "restore": []}[command]
    assert main(["--check", command, *words]) == 0
    assert host.changes == []
    assert host.files() == before
    printed = {"canary": "hello canary\n", "deploy": "old remove\nhello restart\n", "restore": "hello restore\n"}
    assert capsys.readouterr().out == printed[command]


def test_check_mode_of_a_rollback_changes_nothing(
    host: FakeHost, deployed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = host.files()
    capsys.readouterr()
    assert main(["--check", "rollback"]) == 0
    assert host.changes == []
    assert host.files() == before
    assert capsys.readouterr().out == "hello rollback\n"


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("shop:1", "shop:1-0123456789ab"),
        ("registry.example.org:5000/shop", "registry.example.org:5000/shop:0123456789ab"),
        ("vantage/hello", "vantage/hello:0123456789ab"),
    ],
)
def test_a_build_is_named_after_its_source(image: str, tag: str) -> None:
    host = Host("flask_app", image=image)
    assert host.value(trust_as_template("{{ image | built_tag('0123456789abcdef') }}")) == tag
