"""The commands of docs/your-app.md, apps of users, replicas, and invalid apps, which must not replace the running one."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import ROOT, Machine, refused, succeeded, wait
from test_runs import SNAPSHOT

# An app's data outlives the app.
FORGET = "rm -rf /var/lib/vantage/blog /var/lib/vantage/plain /etc/vantage/secrets/plain /etc/vantage/secrets/pair"
GUIDE = (ROOT / "docs/your-app.md").read_text(encoding="utf-8").partition("## Settings")[0]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)

PLAIN = """
import logging
from flask import Flask

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
app = Flask(__name__)


@app.get("/")
def index():
    app.logger.warning("a visitor came")
    return "plain"


@app.get("/broken")
def broken():
    raise RuntimeError("broken on purpose")
"""


# The roles that an app changes something in.
OF_APPS = ("--tags", "flask_app,prometheus")


@pytest.fixture(scope="module", autouse=True)
def site(vm: Machine, playbook: Any) -> Iterator[None]:
    """Deploy the demo shop again at the end."""
    vm.sh(FORGET)
    yield
    result = playbook("site.yml", *OF_APPS)
    vm.sh(FORGET)
    succeeded(result)
    assert not vm.not_ready(), vm.explain()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with a logging configuration of its own and no instrumentation."""
    folder = tmp_path_factory.mktemp("apps") / "plain"
    folder.mkdir()
    (folder / "app.py").write_text(PLAIN)
    (folder / "requirements.txt").write_text("flask\n")
    return folder


# How verify's table shows a signal that an app does not give; the reason follows.
MISSING = "- ("


def row(output: str, hop: str) -> str:
    """Return a hop's cell of verify's table, on one line."""
    found = re.search(rf"{hop} +\d+\.\d\d  (.*?)(?=\n    - |\n\n)", output, re.DOTALL)
    assert found, output
    return " ".join(found[1].split())


# Three deployments and three verifications, on a machine that may be busy.
@pytest.mark.timeout(1200)
def test_commands_of_the_guide_work_as_written(vm: Machine, playbook, tmp_path: Path) -> None:
    verified: list[str] = []
    answers: list[str] = []
    for kind, body in BLOCK.findall(GUIDE):
        head = re.match(r"# (blog/\S+)\n", body)
        if head:
            path = tmp_path / head[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
            continue
        assert kind == "sh", body
        for line in body.splitlines():
            words = shlex.split(line.replace("=blog", f"={tmp_path / 'blog'}"))
            if words[0] == "curl":
                # The ports of the machine under test are its own.
                answers.append(vm.sh(f"cd /tmp && {line}"))
                continue
            assert words[:3] == ["ansible-playbook", "-i", "inventory/container"], line
            if "verify" in words[3]:
                verified.append(succeeded(playbook(words[3], *words[4:])))
            else:
                # The first run is as written; the others deploy what they change.
                succeeded(playbook(words[3], *(OF_APPS if verified else ()), *words[4:]))
    assert json.loads(answers[-1]) == {"posts": [{"title": "Hello", "by": "ada"}]}
    untouched, traced, all_three = verified
    # The access line of vantage-serve, which Promtail counts.
    assert re.match(r"\d+ lines? of blog", row(untouched, "log"))
    assert row(untouched, "trace").startswith(MISSING)
    assert re.match(r"\d+ requests? counted from its access lines", row(untouched, "metric"))
    # Of the trace id that was sent with the request.
    assert re.match(r"\d+ spans? of blog", row(traced, "trace"))
    assert "histogram" in row(all_three, "exemplar")
    # The instance folder outlived three versions of the app.
    assert json.loads(vm.sh("curl -sf http://127.0.0.1:8000/")) == {"posts": [{"title": "Hello", "by": "ada"}]}
    assert "storefront" not in vm.services


@pytest.mark.timeout(600)
def test_an_app_with_its_own_logging_and_an_image_of_static_files(vm: Machine, playbook, plain: Path) -> None:
    vm.sh(
        "mkdir -p /tmp/static && cd /tmp/static && echo 'only a page' >index.html && "
        "printf '%s\\n' 'FROM docker.io/vantage/shop:0.1.0' 'COPY index.html /www/' 'WORKDIR /www' "
        '\'ENTRYPOINT ["python3", "-m", "http.server", "8080"]\' \'CMD []\' >Dockerfile && docker build --quiet --tag static:1 .'
    )
    secret = "planted-secret-9e1f77"
    apps = [
        {"name": "plain", "source": str(plain), "port": 8000, "health_path": "/", "metrics": False, "secrets": {"token": secret}},
        {"name": "static", "image": "static:1", "port": 8002, "container_port": 8080, "health_path": "/", "metrics": False},
    ]  # fmt: skip
    output = succeeded(playbook("site.yml", *OF_APPS, vantage_apps=apps))
    assert vm.sh("curl -sf http://127.0.0.1:8002/").strip() == "only a page"
    assert vm.sh("docker exec vantage-plain cat /run/secrets/token") == secret
    assert secret not in output + vm.sh("docker inspect vantage-plain; journalctl --boot --no-pager --lines=5000")
    for name in ("plain", "static"):
        verified = succeeded(playbook("playbooks/verify.yml", verify_app=name, vantage_apps=apps))
        # The line of http.server has no id: it shows that lines arrive, and proves nothing of this one.
        expected = r"\d+ lines? of plain" if name == "plain" else r"- \(\d+ lines? in ten minutes, none"
        assert re.match(expected, row(verified, "log"))
        assert row(verified, "trace").startswith(MISSING)
    assert vm.log_lines('{service_name="plain", level="warning"} |= "a visitor came"', since=minutes_ago(10))
    # http.server writes no level; the status decides.
    assert vm.log_lines('{service_name="static", level="info"} |= "GET / HTTP"', since=minutes_ago(10))


def minutes_ago(minutes: int) -> float:
    return time.time() - 60 * minutes


TABLES = """
import sqlite3

from flask import Flask

app = Flask(__name__, instance_relative_config=True)


@app.get("/")
def index():
    found = sqlite3.connect(app.instance_path + "/board.sqlite").execute("SELECT title FROM post")
    return {"posts": [row[0] for row in found]}
"""

BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "build that fails": ({"requirements": "no-such-package-by-any-name==1"}, ["build", "no-such-package"]),
    "port that never opens": (
        {"container_port": 5000, "environment": {"PORT": "8000"}},
        ["Port 5000", "8000"],
    ),
    "health path that answers 500": ({"health_path": "/broken"}, ["GET /broken", "500", "broken on purpose"]),
    "missing image": ({"image": "nowhere:1", "source": None}, ["nowhere:1", "image"]),
    "death with a byte that is not UTF-8": (
        {
            "code": "import os\nfrom flask import Flask\nos.write(2, b'Datenbank f\\xe4llt aus\\n')\nraise SystemExit(3)\napp = Flask(__name__)\n"
        },
        ["status 3", "Datenbank f", "llt aus"],
    ),
    "tables that are missing": (
        {"code": TABLES, "health_path": "/"},
        ["GET / answered 500", "no such table: post", "before_start"],
    ),
    "command before the start that fails": (
        {"before_start": "echo 'no such revision'; exit 4"},
        ["status 4", "no such revision"],
    ),
    "directory beside the code": (
        {"code": "import os\nfrom flask import Flask\nos.mkdir('logs')\napp = Flask(__name__)\n"},
        ["/srv/app/logs", "writable", "app.py, line 3"],
    ),
}


def test_all_invalid_apps_are_reported_at_once_and_nothing_is_changed(vm: Machine, playbook, plain: Path) -> None:
    kept = {"source": str(plain), "port": 8000, "health_path": "/", "metrics": False}
    apps = [
        kept | {"name": "empty", "source": str(ROOT / "docs")},
        kept | {"name": "none", "source": "/nowhere"},
        kept | {"name": "misspelt", "helth_path": "/"},
        kept | {"name": "writers", "replicas": 2},
    ]
    before = vm.sh(SNAPSHOT)
    refused(
        playbook("site.yml", *OF_APPS, vantage_apps=apps),
        f"app empty: no Flask app in {ROOT / 'docs'}",
        "app none: source /nowhere",
        "app misspelt: unknown key: helth_path",
        "health_path",
        "app writers: replicas:",
        "/srv/app/instance",
    )
    assert vm.sh(SNAPSHOT) == before
    assert vm.sh("curl -sf http://127.0.0.1:8000/")


@pytest.mark.parametrize("case", BAD)
def test_app_that_does_not_start_does_not_replace_the_running_one(
    vm: Machine, playbook, plain: Path, tmp_path: Path, case: str
) -> None:
    changes, words = BAD[case]
    changes = dict(changes)
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "app.py").write_text(changes.pop("code", PLAIN))
    (folder / "requirements.txt").write_text(str(changes.pop("requirements", "flask")) + "\n")
    # Of the name and source that may run already: what is built of it once is there.
    app = {"name": "plain", "source": str(folder), "port": 8000, "health_path": "/", "metrics": False} | changes
    before = vm.sh(SNAPSHOT)
    apps = [{key: value for key, value in app.items() if value is not None}]
    refused(playbook("site.yml", *OF_APPS, vantage_apps=apps, vantage_ready_seconds=5), *words)
    assert vm.sh(SNAPSHOT) == before
    assert vm.sh("curl -sf http://127.0.0.1:8000/")


@pytest.mark.timeout(600)
def test_an_app_that_ends_again_and_again_is_rolled_back_and_rollback_is_one_command(
    vm: Machine, playbook, tmp_path: Path
) -> None:
    def app(text: str, **more: Any) -> list[dict[str, Any]]:
        (tmp_path / "app.py").write_text(text)
        return [{"name": "plain", "source": str(tmp_path), "port": 8000, "metrics": False, "health_path": "/"} | more]

    (tmp_path / "requirements.txt").write_text("flask\n")
    create = "import sqlite3; sqlite3.connect('instance/board.sqlite').executescript('CREATE TABLE IF NOT EXISTS post (title)')"
    before_start = f'python3 -c "{create}"'
    succeeded(playbook("site.yml", *OF_APPS, vantage_apps=app(TABLES, before_start=before_start)))
    assert json.loads(vm.sh("curl -sf http://127.0.0.1:8000/")) == {"posts": []}

    crash = PLAIN + "\nimport os, threading\nthreading.Timer(20, os._exit, [3]).start()\n"
    succeeded(playbook("site.yml", *OF_APPS, vantage_apps=app(crash)))
    wait(lambda: "Rolled back at" in vm.sh("/usr/local/lib/vantage/vantage_unit.py status || true"), 120)
    assert json.loads(vm.sh("curl -sf http://127.0.0.1:8000/")) == {"posts": []}

    succeeded(playbook("site.yml", *OF_APPS, vantage_apps=app(PLAIN)))
    assert "posts" not in vm.sh("curl -sf http://127.0.0.1:8000/")
    succeeded(playbook("playbooks/rollback.yml"))
    assert json.loads(vm.sh("curl -sf http://127.0.0.1:8000/")) == {"posts": []}


PAIR = """
from flask import Flask
from flask_vantage import Vantage

app = Flask(__name__)
Vantage(app)


@app.get("/")
def index():
    return "one of a pair"
"""


@pytest.mark.timeout(600)
def test_replicas_are_one_service_and_scaling_down_leaves_no_trace(vm: Machine, playbook) -> None:
    vm.sh(
        f"mkdir -p /tmp/pair && cd /tmp/pair && echo {shlex.quote(PAIR)} >pair.py && printf '%s\\n' "
        "'FROM docker.io/vantage/shop:0.1.0' 'COPY pair.py /srv/' 'ENV PYTHONPATH=/srv' 'CMD [\"pair:app\"]' >Dockerfile && "
        "docker build --quiet --tag pair:1 ."
    )
    pair = {"name": "pair", "image": "pair:1", "port": 8000, "secrets": {"token": "planted-secret-5b0d42"}}

    def deploy(**keys: object) -> None:
        succeeded(playbook("site.yml", *OF_APPS, vantage_apps=[pair | keys]))

    # A new environment, so that both are recreated even after an interrupted test.
    deploy(replicas=2, environment={"ROUND": str(time.time())})
    assert {"pair", "pair-2"} <= set(vm.services)
    assert not vm.not_ready(), vm.explain()
    vm.sh(
        "for i in 1 2 3; do curl -sf http://127.0.0.1:8000/; done; for i in 1 2 3 4 5; do curl -sf http://127.0.0.1:8001/; done"
    )
    # In the other container, because in the first one its own name is its host name.
    addresses = "import socket; print(len({a[4][0] for a in socket.getaddrinfo('pair', 8000)}))"
    assert vm.sh(f"docker exec vantage-pair-2 python3 -c {shlex.quote(addresses)}").strip() == "2"
    assert vm.sh("cat /run/vantage/pair-2.json && docker exec vantage-pair-2 cat /run/secrets/token").endswith("5b0d42")
    # Both are scraped, each by itself, as instances of one service.
    counted = 'http_server_request_duration_seconds_count{service_name="pair", http_route="/"}'

    def by_instance() -> dict[str, float]:
        return {one["metric"]["instance"]: float(one["value"][1]) for one in vm.instant(counted)}

    wait(lambda: by_instance() == {"pair:8000": 3, "pair-2:8000": 5}, 40, lambda: f"{by_instance()} {vm.explain()}")
    assert vm.log_lines('{service_name="pair", unit="vantage-pair-2.service"}', since=minutes_ago(5))

    # A new version is deployed to one replica after the other, so a client always finds one that answers.
    vm.sh(
        "docker run --detach --name pair-client --network vantage --entrypoint python3 docker.io/vantage/shop:0.1.0 -c "
        + shlex.quote(CLIENT)
    )
    try:
        before = {name: vm.inspect(name)["Id"] for name in ("pair", "pair-2")}
        deploy(replicas=2)
        assert all(vm.inspect(name)["Id"] != before[name] for name in before)
        asked, failed = vm.sh("docker kill --signal=TERM pair-client >/dev/null; docker logs pair-client").split()
    finally:
        vm.sh("docker rm --force pair-client")
    assert int(asked) > 100
    assert failed == "0"

    first = vm.inspect("pair")["Id"]
    deploy(replicas=1)
    assert vm.inspect("pair")["Id"] == first
    left = vm.try_sh(
        "find /etc /run/vantage /var/lib/vantage -name '*pair-2*'; docker ps --all --format '{{.Names}}' | grep pair-2; "
        "systemctl list-units --all --plain --no-legend 'vantage-pair-2*'"
    )
    assert left == ""
    assert "pair-2" not in vm.sh("cat /etc/vantage/prometheus/prometheus.yml")


# Sends requests to the app's name until SIGTERM, each with one retry; prints how many it sent and how many failed.
CLIENT = """
import signal, sys, time, urllib.request

asked = failed = 0
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(asked, failed)))
while True:
    asked += 1
    for last in (False, True):
        try:
            urllib.request.urlopen("http://pair:8000/", timeout=5).read()
            break
        except OSError:
            failed += last
    time.sleep(0.02)
"""
