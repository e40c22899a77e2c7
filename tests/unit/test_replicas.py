"""Replicas of an app: their services, units, scrape targets and Compose services, and which are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from rendering import ROLES, Host, unit_of
from test_preflight import ports, variables

APP = {"name": "blog", "image": "blog:1", "port": 8000}
MONITORING = {
    "inventory_hostname": "mon",
    "groups": {"all": ["web", "mon"], "app": ["web"], "monitoring": ["mon"]},
    "hostvars": {"web": {"ansible_host": "10.0.0.8"}, "mon": {}},
}


def services(*apps: dict[str, Any]) -> list[dict[str, Any]]:
    return list(
        Host("flask_app", vantage_apps=list(apps)).value(trust_as_template("{{ vantage_apps | app_services }}"))
    )


def containers(app: dict[str, Any], runtime: str = "systemd") -> dict[str, Host]:
    """container_service as flask_app calls it, for each service of an app."""
    found = {}
    for service in services(app):
        host = Host("flask_app", __flask_app=app, __flask_app_service=service, vantage_runtime=runtime)
        given = {name: value for name, value in host.variables.items() if name != "role_path"}
        given["container_service"] = host.variables["__flask_app_container"]
        found[service["name"]] = Host("container_service", **given)
    return found


def units(app: dict[str, Any]) -> dict[str, str]:
    """The text of each unit that an app gets."""
    return {name: unit_of(host.variables) for name, host in containers(app).items()}


def targets(app: dict[str, Any], **given: Any) -> dict[str, dict[str, str]]:
    """The labels of each target of Prometheus' job for apps, by address."""
    host = Host("prometheus", vantage_apps=[app], **given)
    config = yaml.safe_load(host.render(ROLES / "prometheus/templates/prometheus.yml.j2"))
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "apps")
    return {target: group["labels"] for group in job["static_configs"] for target in group["targets"]}


def test_an_app_is_its_own_service_and_one_more_for_each_replica() -> None:
    found = services(APP | {"replicas": "3"}, {"name": "site", "image": "site:1", "port": 9000})
    assert [(one["name"], one["app"], one["port"]) for one in found] == [
        ("blog", "blog", 8000), ("blog-2", "blog", 8001), ("blog-3", "blog", 8002), ("site", "site", 9000),
    ]  # fmt: skip


def test_the_first_replica_is_what_the_app_is_alone() -> None:
    full = APP | {"data": "/data", "secrets": {"key": "x"}, "trial": True}
    assert units(full | {"replicas": 3})["blog"] == units(full)["blog"]


def test_a_replica_differs_in_name_port_and_instance_alone() -> None:
    full = APP | {"data": "/data", "secrets": {"key": "x"}, "volumes": ["/srv/pictures:/pictures:ro"], "replicas": 2}
    first, second = (text.splitlines() for text in units(full).values())
    added = [line.strip() for line in second if line not in first]
    assert added == [
        "Description=Vantage: Flask app blog, replica 2",
        # Written before each start, for the service of this name.
        "EnvironmentFile=-/run/vantage/blog-2.env",
        "ExecStartPre=/usr/local/lib/vantage/vantage_unit.py pre-start blog-2",
        "--name=vantage-blog-2 --hostname=blog-2 \\",
        "--publish=127.0.0.1:8001:8000 \\",
        "--env=OTEL_RESOURCE_ATTRIBUTES=host.name=vm,service.instance.id=blog-2 \\",
        "ExecStartPost=-/usr/local/lib/vantage/vantage_unit.py ready blog-2",
        "ExecStop=-/usr/local/lib/vantage/vantage_unit.py stop blog-2",
        "ReplicaOf=blog",
        "ReadyUrl=http://127.0.0.1:8001/readyz",
        "Canary=no",
    ]
    # The same: what callers use, whose lines they are, the spans' service, data and secrets.
    for line in (
        "  --network=vantage --network-alias=blog \\",
        "SyslogIdentifier=vantage-blog",
        "  --env=OTEL_SERVICE_NAME=blog \\",
        "  --volume=/var/lib/vantage/blog:/data \\",
        "  --volume=/etc/vantage/secrets/blog:/run/secrets:ro \\",
    ):
        assert line in first
        assert line in second


def test_prometheus_scrapes_each_replica_by_a_name_that_no_other_has() -> None:
    assert targets(APP | {"replicas": 2}) == {
        "vantage-blog:8000": {"service_name": "blog", "host": "vm", "instance": "blog:8000"},
        "vantage-blog-2:8000": {"service_name": "blog", "host": "vm", "instance": "blog-2:8000"},
    }
    assert targets(APP | {"replicas": 1}) == targets(APP) == {"blog:8000": {"service_name": "blog", "host": "vm"}}
    assert set(targets(APP | {"replicas": 2}, **MONITORING)) == {"10.0.0.8:8000", "10.0.0.8:8001"}


def test_the_memory_limit_is_that_of_each_replica() -> None:
    host = Host("prometheus", vantage_apps=[APP | {"replicas": 3, "memory": "100m"}])
    limits = {one["service"]: one["bytes"] for one in host.value(host.variables["__prometheus_memory_limits"])}
    assert limits["blog"] == 100 * 2**20


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"replicas": 0}, ["invalid value 0", "1-16"]),
        ({"replicas": -1}, ["invalid value -1", "1-16"]),
        ({"replicas": 17}, ["invalid value 17", "1-16"]),
        ({"replicas": "two"}, ["replicas", "two", "int"]),
        ({"replicas": 3, "port": 65534}, ["65534", "65536"]),
        ({"replicas": 2, "data": "/data"}, ["/data", "shared_data"]),
        ({"replicas": 2, "volumes": ["/a:/b:ro", "/c:/d"]}, ["/c:/d", "shared_data"]),
        ({"replicas": 2, "volumes": ["/a:/b:z,ro", "/ro:/ro:rw,z"]}, ["/ro:/ro:rw,z"]),
    ],
)
def test_invalid_replicas_are_refused(keys: dict[str, Any], words: list[str]) -> None:
    (problem,) = variables.app_problems([APP | keys])
    for word in ["blog", *words]:
        assert word in problem


@pytest.mark.parametrize(
    "keys",
    [
        {"replicas": 16},
        {"replicas": 1, "data": "/data"},
        {"replicas": 2, "data": "/data", "shared_data": True},
        {"replicas": 2, "volumes": ["/a:/b:ro", "/a:/b:ro,z", "/a:/b:z,ro"]},
    ],
)
def test_valid_replicas_pass(keys: dict[str, Any]) -> None:
    assert variables.app_problems([APP | keys]) == []


def test_replicas_share_the_instance_folder_only_with_shared_data(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    (tmp_path / "requirements.txt").write_text("flask\n")
    app = {"name": "blog", "source": str(tmp_path), "port": 8000, "replicas": 2}
    (problem,) = variables.app_problems([app])
    assert "/srv/app/instance" in problem
    assert variables.app_problems([app | {"shared_data": "yes"}]) == []


def test_a_replica_and_an_app_of_one_name_are_refused() -> None:
    other = {"name": "blog-2", "image": "other:1", "port": 9000}
    (problem,) = variables.app_problems([other, APP | {"replicas": 2}])
    for word in ("replica 2 of app blog", "duplicate name blog-2"):
        assert word in problem
    assert variables.app_problems([other, APP]) == []


def port_problems(*apps: dict[str, Any], container: str | None = None) -> list[str]:
    """What the check of ports reports of apps on a host where nothing runs but one container on port 8001."""
    found = [{"address": "127.0.0.1", "port": 8001, "container": container, "holder": f"container {container}"}]
    state = {"listeners": found if container is not None else [], "apps": []}
    return list(ports.port_problems(ports.app_ports(services(*apps), "127.0.0.1"), state, "vm"))


def test_a_replica_on_another_apps_port_is_refused_with_both_names() -> None:
    (problem,) = port_problems(APP | {"replicas": 2}, {"name": "site", "image": "site:1", "port": 8001})
    for word in ("app site", "app blog, replica 2", "8001"):
        assert word in problem
    assert port_problems(APP | {"replicas": 2}, {"name": "site", "image": "site:1", "port": 8002}) == []


def test_a_container_whose_unit_is_gone_may_be_replaced_by_its_own_service() -> None:
    assert port_problems(APP | {"replicas": 2}, container="vantage-blog-2") == []
    (problem,) = port_problems(APP | {"replicas": 2}, container="other")
    for word in ("app blog, replica 2", "container other", "127.0.0.1:8001"):
        assert word in problem


SHARED = APP | {"replicas": 2, "data": "/data", "shared_data": True, "secrets": {"key": "x"}}


def test_compose_has_a_service_for_each_replica() -> None:
    template = trust_as_template("{{ __container_service | compose_service('', places) }}")
    places = {"root": "/src", "config": "compose/config", "role": "/src/roles/flask_app"}
    hosts = containers(SHARED, "compose")
    first, second = (
        Host("container_service", **host.variables, places=places).value(template) for host in hosts.values()
    )
    assert first["ports"] == ["127.0.0.1:8000:8000"]
    assert second["ports"] == ["127.0.0.1:8001:8000"]
    assert first["networks"]["default"]["aliases"] == ["vantage-blog"]
    assert second["networks"]["default"]["aliases"] == ["blog", "vantage-blog-2"]
    assert first["volumes"] == second["volumes"]
    assert [mount["source"] for mount in first["volumes"]] == ["blog", "./compose/secrets/blog"]
    # By this Promtail knows whose its lines are.
    assert second["labels"]["vantage.replica_of"] == "blog"
    assert second["logging"]["options"]["labels"] == "vantage.replica_of"


@pytest.mark.parametrize("runtime", ["systemd", "compose"])
def test_replicas_have_the_secrets_of_their_app(runtime: str) -> None:
    given = "'/config', '/secrets'" if runtime == "compose" else "'docker run', {}"
    form = "{{ __container_service | " + f"{'compose' if runtime == 'compose' else 'service'}_files({given})" + " }}"
    folder = "/secrets" if runtime == "compose" else "/etc/vantage/secrets"
    for host in containers(SHARED, runtime).values():
        files = host.value(trust_as_template(form))
        assert [file["path"] for file in files if file.get("secret") and "content" in file] == [f"{folder}/blog/key"]


def test_an_app_is_published_where_users_and_prometheus_reach_it() -> None:
    template = trust_as_template("{{ __container_service.published }}")

    def published(**given: str) -> list[str]:
        (host,) = containers(APP).values()
        return list(Host("container_service", **(host.variables | given)).value(template))

    assert published() == ["127.0.0.1:8000:8000"]
    assert published(vantage_engine_address="10.0.0.8") == ["127.0.0.1:8000:8000", "10.0.0.8:8000:8000"]
    assert published(vantage_engine_address="0.0.0.0") == ["0.0.0.0:8000:8000"]
    (host,) = containers(APP | {"address": "192.0.2.1"}).values()
    assert host.value(template) == ["192.0.2.1:8000:8000", "127.0.0.1:8000:8000"]
    assert host.value(trust_as_template("{{ __container_service.ready_url }}")) == "http://192.0.2.1:8000/readyz"


def test_image_built_on_a_host_is_not_pulled_and_has_its_own_tag(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    app = {"name": "blog", "source": str(tmp_path), "port": 8000}
    template = trust_as_template("{{ [__container_service.image, __container_service.build] }}")
    (host,), (laptop,) = containers(app).values(), containers(app, "compose").values()
    image, build = host.value(template)
    assert re.fullmatch(r"vantage/blog:[0-9a-f]{12}", image)
    assert build == str(tmp_path)
    assert laptop.value(template) == ["vantage/blog:local", str(tmp_path)]
    (pulled,) = containers(APP).values()
    assert pulled.value(template) == ["blog:1", ""]


def test_a_service_brings_the_programs_that_its_unit_calls() -> None:
    """A run with --tags may be the first after an upgrade."""
    tasks = yaml.safe_load((ROLES / "container_service/tasks/apply.yml").read_text(encoding="utf-8"))
    (files,) = (task["vantage_files"]["files"] for task in tasks if "vantage_files" in task)
    host = containers(APP)["blog"]
    first, *others, last = host.value(trust_as_template(files))
    assert first["source"] == Path(first["path"]).name == "vantage_unit.py"
    assert "vantage_app.py" in {file.get("source") for file in others}
    assert last["last"]
    assert last["path"].endswith("vantage-blog.service")
    host.variables["container_service"] = {"name": "blog", "state": "absent"}
    assert host.value(trust_as_template(files)) == [first]
    # A service before this one that waited for its image has written nothing.
    for earlier, done in (
        ("__docker_programs", True),
        ("__container_service_applied", True),
        ("__container_service_applied", False),
    ):
        again = Host("container_service", **(host.variables | {earlier: {"needs_image": not done}}))
        assert again.value(trust_as_template(files)) == ([] if done else [first])
