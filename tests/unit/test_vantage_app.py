"""vantage-app, with systemd and Docker replaced by what they would print."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from ansible.template import trust_as_template
from rendering import ROLES, Host

ACTIVE = "ActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n"


def text(image: str, port: int = 8000, owner: str = "flask_app") -> str:
    return (
        "[Service]\n"
        f"ExecStart=/usr/bin/docker run --rm --pull=never --log-driver=none \\\n  --name=vantage-hello --hostname=hello \\\n"
        f"  --network=vantage --network-alias=hello \\\n  --user=10001:10001 --read-only \\\n"
        f"  --publish=127.0.0.1:{port}:5000 \\\n"
        "  --volume=/var/lib/vantage/hello:/data \\\n  --volume=/etc/vantage/secrets/hello:/run/secrets:ro \\\n"
        '  --env="GREETING=50%% of $$1 \\"each\\"" \\\n'
        f"  {image}\n"
        f"[X-Vantage]\nOwner={owner}\nImage={image}\nReadyUrl=http://127.0.0.1:{port}/health\nReadySeconds=1\nStopSeconds=5\n"
    )


class Engine:
    """What was called, and what it answers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answers: dict[str, str] = {"systemctl show": ACTIVE, "docker image": "sha256:1\n"}
        self.failing: set[str] = set()

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        self.calls.append(" ".join(argv))
        if argv[-1] == "--value":
            return subprocess.CompletedProcess(argv, 0, "active\n", "")
        return subprocess.CompletedProcess(argv, 0, self.answers.get(" ".join(argv[:2]), ""), "")


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("vantage_app", str(ROLES / "docker/files/vantage-app"))
    spec = importlib.util.spec_from_loader("vantage_app", loader)
    assert spec
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    for name in ("UNITS", "CONFIG", "STATE"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(module.UNIT, name, tmp_path / name)
    module.engine = Engine()  # type: ignore[attr-defined]
    monkeypatch.setattr(module.UNIT, "run", module.engine.run)
    return module


def write(app: ModuleType, service: str, content: str) -> Path:
    path = Path(app.unit_path(service))
    path.write_text(content)
    return path


def test_a_trial_has_neither_the_ports_nor_the_names_nor_the_data_of_what_runs(app: ModuleType, tmp_path: Path) -> None:
    app.shutil.chown = lambda *_: None
    arguments = app.trial_arguments("hello", text("hello:2"), tmp_path)
    assert "--name=vantage-hello-trial" in arguments
    assert not [word for word in arguments if word.startswith(("--publish", "--network-alias", "--rm"))]
    assert f"--volume={tmp_path}/0:/data" in arguments
    assert "--volume=/etc/vantage/secrets/hello:/run/secrets:ro" in arguments
    assert arguments[-1] == "hello:2"


def test_a_trial_reads_what_is_mounted_to_be_read_and_writes_nowhere_else(app: ModuleType, tmp_path: Path) -> None:
    app.shutil.chown = lambda *_: None
    volumes = ("/a:/b:ro,z", "/c:/d:z,ro", "/ro:/e:rw,z", "/ro:/f")
    unit = text("hello:2").replace("--read-only", "--read-only " + " ".join(f"--volume={volume}" for volume in volumes))
    found = [word for word in app.trial_arguments("hello", unit, tmp_path) if word.startswith("--volume=/")]
    assert found == [
        "--volume=/a:/b:ro,z",
        "--volume=/c:/d:z,ro",
        f"--volume={tmp_path}/0:/e",
        f"--volume={tmp_path}/1:/f",
        f"--volume={tmp_path}/2:/data",
        "--volume=/etc/vantage/secrets/hello:/run/secrets:ro",
    ]


def test_systemds_quoting_is_undone(app: ModuleType) -> None:
    assert '--env=GREETING=50% of $1 "each"' in app.docker_arguments(text("hello:2"))


def test_nothing_is_tried_where_no_app_runs(app: ModuleType, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate"
    candidate.write_text(text("hello:2"))
    write(app, "loki", text("loki:1", owner="loki"))
    app.attempt("hello", candidate)
    assert not [call for call in app.engine.calls if call.startswith("docker run")]


def test_a_trial_that_ends_is_refused_and_cleared_away(
    app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = tmp_path / "candidate"
    candidate.write_text(text("hello:2"))
    write(app, "hello", text("hello:1"))
    monkeypatch.setattr(app.shutil, "chown", lambda *_: None)
    monkeypatch.setattr(app, "last_lines", lambda _: "no such module")
    app.engine.answers["docker container"] = "exited 2 false 0\n"
    with pytest.raises(SystemExit):
        app.attempt("hello", candidate)
    said = capsys.readouterr().err
    assert "hello did not pass its trial" in said
    assert "ended with status 2" in said
    assert "no such module" in said
    assert app.engine.calls[-1].startswith("docker rm --force --volumes vantage-hello-trial")


def test_units_written_before_a_refused_one_are_put_back(app: ModuleType, tmp_path: Path) -> None:
    installed = write(app, "hello", text("hello:1"))
    app.remember("hello")
    app.remember("world")
    installed.write_text(text("hello:2"))
    new = write(app, "world", text("world:1"))
    app.put_files_back()
    assert installed.read_text() == text("hello:1")
    assert not new.exists()


def test_a_swap_that_fails_brings_all_back(
    app: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = write(app, "shop", text("shop:1"))
    write(app, "hello", text("hello:1"))
    app.remember("hello")
    hello = write(app, "hello", text("hello:2"))
    applied: list[str] = []

    def apply(service: str) -> None:
        applied.append(f"{service} {app.setting(app.unit_path(service).read_text(), 'Image')}")
        if applied[-1] == "hello hello:2":
            raise SystemExit(1)

    monkeypatch.setattr(app.UNIT, "apply", apply)
    with pytest.raises(SystemExit):
        app.swap("flask_app", ["hello"])
    assert shop.read_text() == text("shop:1")
    assert hello.read_text() == text("hello:1")
    assert applied == ["hello hello:2", "hello hello:1", "shop shop:1"]
    assert "run as before" in capsys.readouterr().err


def test_a_swap_lets_go_of_ports_before_others_take_them(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    write(app, "one", text("one:1", 8000))
    write(app, "two", text("two:1", 8001))
    app.remember("one")
    app.remember("two")
    write(app, "one", text("one:1", 8001))
    write(app, "two", text("two:1", 8000))
    order: list[str] = []
    monkeypatch.setattr(app.UNIT, "apply", lambda service: order.extend([*app.engine.calls, f"apply {service}"]))
    app.swap("flask_app", ["one", "two"])
    assert order.index("systemctl stop vantage-two.service") < order.index("apply one")


def test_only_builds_that_nobody_needs_are_forgotten(app: ModuleType) -> None:
    write(app, "hello", text("hello:1-0123456789ab"))
    app.engine.answers["docker image"] = "hello:1-0123456789ab\nhello:1-ba9876543210\nhello:1\n"
    app.forget_builds([])
    removed = [call for call in app.engine.calls if call.startswith("docker image rm")]
    assert removed == ["docker image rm hello:1-ba9876543210"]


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
