"""docker-compose.yml says of each service what its unit says, and what it needs is there."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import ROLES, ROOT, Host, compose_service, load, unit
from test_roles import SERVICES

DOCUMENT = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
INVENTORY = ROOT / "inventory/compose"
PLAYBOOK = ROOT / "playbooks/compose.yml"
APP = {"name": "hello", "port": 8000}


def render(
    folder: Path, *words: str, inventory: Path = INVENTORY, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Runs the playbook that renders docker-compose.yml, with variables over those of the inventory."""
    playbook = Path(sys.executable).with_name("ansible-playbook")
    given = json.dumps(variables | {"vantage_compose_dir": str(folder)})
    command = [str(playbook), "-i", str(inventory), str(PLAYBOOK), "-e", given, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is rendered for settings of a user."""
    folder = tmp_path_factory.mktemp("laptop")
    old = folder / "compose/secrets/alertmanager/gone"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    for name in ("removed", "loki"):
        (folder / "compose/secrets" / name).mkdir()
    (folder / "compose/config/removed").mkdir(parents=True)
    (folder / "compose/config/loki").mkdir()
    (folder / "compose/config/loki/old.yml").write_text("")
    (folder / "hello").mkdir()
    (folder / "hello/Dockerfile").write_text("FROM scratch\n")
    done = render(
        folder,
        vantage_compose_write_secrets=True,
        prometheus_memory="1g",
        prometheus_scrape_interval="5s",
        grafana_port=3999,
        alertmanager_receivers=[{"name": "team", "slack_url": "https://example.org/planted"}],
        traffic_enabled=True,
        traffic_url="http://hello:8000",
        vantage_apps=[
            APP
            | {"source": str(folder / "hello"), "replicas": 2, "secrets": {"key": "app-secret"}}
            | {"data": "/data", "shared_data": True, "before_start": 'test -s /data/db || echo "$HOME"'}
        ],
    )
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture(scope="module")
def services(laptop: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((laptop / "docker-compose.yml").read_text(encoding="utf-8"))["services"])


def test_every_service_of_the_playbook_is_there() -> None:
    names = {role.replace("_", "-") for role in SERVICES} | {"storefront", "warehouse", "prepare"}
    assert set(DOCUMENT["services"]) == names


@pytest.mark.parametrize("role", SERVICES)
def test_service_is_what_its_unit_is(role: str) -> None:
    """The two runtimes are given the same data; here the options that each writes by itself."""
    service = compose_service(role)
    text = unit(role, vantage_runtime="compose", ansible_parent_role_paths=[str(ROLES / role)])
    options = dict(re.findall(r" --([a-z-]+)=(\S+)", text.partition("ExecStart=")[2].partition("\n#")[0]))
    assert service["user"] == options["user"]
    assert service["hostname"] == options["hostname"]
    assert service["mem_limit"] == service["memswap_limit"] == options["memory"] == options["memory-swap"]
    assert service["pids_limit"] == int(options["pids-limit"])
    assert service["stop_grace_period"] == options["stop-timeout"] + "s"
    assert service["read_only"] is (" --read-only" in text)
    assert service["cap_drop"] == [options["cap-drop"]]
    assert service["security_opt"] == [options["security-opt"]]
    assert service.get("network_mode", "vantage") == options["network"]
    assert service.get("ports", []) == re.findall(r"--publish=(\S+)", text)
    proxies = [name for name in service.get("environment", {}) if name.lower().endswith("_proxy")]
    assert proxies == re.findall(r'--env="?(\w+_proxy)=', text, re.IGNORECASE)
    assert set(proxies) == {"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"}
    volumes = {value.split(":")[1]: ":ro" in value for value in re.findall(r"--volume=(\S+)", text)}
    mounted = {mount["target"]: mount.get("read_only", False) for mount in service.get("volumes", [])}
    # On a host the dashboards are copied into the folder of the config.
    mounted.pop("/etc/grafana/provisioning/dashboards/json", None)
    assert mounted == volumes


@pytest.mark.parametrize("name", DOCUMENT["services"])
def test_service_is_hardened_and_seen_by_this_machine_alone(name: str) -> None:
    service = DOCUMENT["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "prepare" else [])
    assert service["security_opt"] == ["no-new-privileges"]
    assert re.fullmatch(r"\d+:\d+", service["user"])
    assert (service["user"] == "0:0") == (name in {"prepare", "promtail"})
    assert service["mem_limit"] and service["pids_limit"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "docker.sock" not in str(service.get("volumes", ""))


def test_compose_file_has_no_password() -> None:
    environment = DOCUMENT["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/compose/secrets/", "/build/"} <= set(ignored)


def test_what_is_mounted_is_in_the_repository() -> None:
    for name, service in DOCUMENT["services"].items():
        for mount in service.get("volumes", []):
            source = mount["source"]
            if source.startswith("./") and "secrets" not in source:
                assert (ROOT / source).is_dir(), (name, source)
            if mount["type"] == "bind":
                # Made by Docker where it is missing, it would be empty, and root's.
                assert mount["bind"]["create_host_path"] is False, (name, source)


def test_every_line_is_tagged_with_the_name_of_its_unit() -> None:
    for name, service in DOCUMENT["services"].items():
        if name != "prepare":
            assert service["logging"]["options"]["tag"] == f"vantage-{name}.service"
    config = yaml.safe_load((ROOT / "compose/config/promtail/promtail.yml").read_text(encoding="utf-8"))
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"][0]["labels"]["__path__"] == "/var/lib/docker/containers/*/*-json.log"


def test_a_host_still_reads_its_journal() -> None:
    config = yaml.safe_load(Host("promtail").render(ROLES / "promtail/templates/promtail.yml.j2"))
    (scrape,) = config["scrape_configs"]
    assert scrape["journal"]["path"] == "/var/log/journal"
    stages = [next(iter(stage)) for stage in scrape["pipeline_stages"]]
    assert "cri" not in stages
    assert "cri" not in stages
    assert "--collector.systemd" in unit("node_exporter")


def test_a_setting_reaches_the_service_and_its_config(laptop: Path, services: dict[str, Any]) -> None:
    assert services["prometheus"]["mem_limit"] == "1g"
    assert services["grafana"]["ports"] == ["127.0.0.1:3999:3000"]
    config = (laptop / "compose/config/prometheus/prometheus.yml").read_text(encoding="utf-8")
    assert "scrape_interval: 5s" in config
    # Without it the container would keep the config of its start.
    assert (
        services["prometheus"]["labels"]["vantage.config"]
        != DOCUMENT["services"]["prometheus"]["labels"]["vantage.config"]
    )
    assert services["loki"] == DOCUMENT["services"]["loki"]
    assert "profiles" not in services["traffic"]
    assert DOCUMENT["services"]["traffic"]["profiles"] == ["traffic"]


def test_files_of_an_earlier_rendering_are_removed(laptop: Path) -> None:
    assert [path.name for path in (laptop / "compose/config/loki").iterdir()] == ["loki.yml"]
    assert not (laptop / "compose/config/removed").exists()
    assert not (laptop / "compose/secrets/alertmanager/gone").exists()
    mounted = {"alertmanager", "grafana", "hello", "prometheus"}
    assert {path.name for path in (laptop / "compose/secrets").iterdir()} == mounted


def test_an_image_of_two_services_is_built_once(laptop: Path, services: dict[str, Any]) -> None:
    assert services["hello"]["build"] == {"context": str(laptop / "hello")}
    assert services["hello"]["image"] == services["hello-2"]["image"] == "vantage/hello:local"
    assert "build" not in services["hello-2"]


def test_before_start_ends_before_the_app_and_its_replicas_start(services: dict[str, Any]) -> None:
    before, app = services["hello-before-start"], services["hello"]
    assert before["entrypoint"] + before["command"] == ["/bin/sh", "-c", 'test -s /data/db || echo "$$HOME"']
    done = {"condition": "service_completed_successfully"}
    assert before["depends_on"] == {"prepare": done}
    for name in ("hello", "hello-2"):
        assert services[name]["depends_on"] == {"prepare": done, "hello-before-start": done}
    for key in ("image", "user", "environment", "volumes", "read_only", "cap_drop", "mem_limit"):
        assert before[key] == app[key]
    assert not {"ports", "restart", "build", "before_start"} & set(before)


def test_an_app_reaches_the_services_without_a_proxy(services: dict[str, Any]) -> None:
    environment = services["hello"]["environment"]
    assert {"jaeger", "hello-2", "localhost", "172.29.238.0/24"} <= set(environment["NO_PROXY"].split(","))
    assert environment["no_proxy"] == environment["NO_PROXY"]
    assert "NO_PROXY" not in services["loki"].get("environment", {})


def test_secrets_are_files_that_a_container_can_read(laptop: Path) -> None:
    top = laptop / "compose/secrets"
    password = top / "grafana/admin_password"
    assert len(password.read_text()) >= 30
    assert password.read_text() != (top / "grafana/secret_key").read_text()
    # Readable by a container's user, whom this machine does not know, and yet by no other user here.
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    assert stat.S_IMODE(password.stat().st_mode) == 0o444
    assert (top / "alertmanager/team_slack_url").read_text() == "https://example.org/planted"
    assert (top / "hello/key").read_text() == "app-secret"
    # A replica reads those of its app.
    assert not (top / "hello-2").exists()
    rendered = [laptop / "docker-compose.yml", *(laptop / "compose/config").rglob("*.yml")]
    assert not [path for path in rendered if re.search("planted|app-secret", path.read_text(encoding="utf-8"))]


def test_an_app_without_a_dockerfile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no Dockerfile"):
        compose_service("loki", changes={"build": str(tmp_path)})


def test_invalid_setting_is_refused_by_name(tmp_path: Path) -> None:
    done = render(tmp_path, prometheus_retention_time="1d")
    assert done.returncode != 0
    assert "prometheus_slo_days" in done.stdout
    assert not (tmp_path / "docker-compose.yml").exists()


def test_an_inventory_of_two_machines_is_refused(tmp_path: Path) -> None:
    group = {"hosts": {"one": {}, "two": {}}, "vars": {"ansible_connection": "local", "vantage_runtime": "compose"}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"app": group, "monitoring": group}))
    done = render(tmp_path, inventory=tmp_path / "hosts.yml")
    assert done.returncode != 0
    assert "one, two" in done.stdout
    assert not (tmp_path / "docker-compose.yml").exists()


def test_the_verifier_finds_the_password_where_it_is_made() -> None:
    given = load(INVENTORY / "group_vars/all/main.yml")
    path = Host("verify", inventory_dir=str(INVENTORY), **given).value(given["verify_grafana_password_file"])
    assert Path(path).resolve() == (ROOT / "compose/secrets/grafana/admin_password").resolve()
