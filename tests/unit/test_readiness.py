"""When an app counts as ready, on which port, and what its unit says about its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.loader import filter_loader
from rendering import Host
from test_preflight import variables
from test_replicas import APP, targets, units
from vantage_unit import Unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Flask app without flask_vantage and without Dockerfile."""
    (tmp_path / "app.py").write_text("from flask import Flask\napp = Flask(__name__)\n")
    (tmp_path / "requirements.txt").write_text("flask\n")
    return tmp_path


def health_check(**app: Any) -> tuple[str, int]:
    found = filter_loader.get("health_check").j2_function(app)
    return found["path"], found["below"]


def container_port(app: dict[str, Any], exposed: dict[str, Any] | None = None) -> int:
    return int(filter_loader.get("container_port").j2_function({"name": "blog"} | app, exposed or {}))


def test_any_answer_below_500_is_ready_where_nobody_chose_a_path(folder: Path) -> None:
    assert health_check(source=str(folder)) == ("/", 500)
    assert health_check(image="blog:1") == ("/readyz", 500)
    assert health_check(image="blog:1", metrics=False) == ("/", 500)


def test_only_2xx_is_ready_at_a_path_that_was_chosen(folder: Path) -> None:
    assert health_check(source=str(folder), health_path="/") == ("/", 300)
    assert health_check(image="blog:1", health_path="/health?full=1") == ("/health?full=1", 300)


def test_only_2xx_is_ready_at_readyz_of_flask_vantage(folder: Path) -> None:
    (folder / "wsgi.py").write_text("from flask_vantage import Vantage\n")
    assert health_check(source=str(folder)) == ("/readyz", 300)


def test_an_app_is_scraped_that_may_have_metrics_unless_it_says_so(folder: Path) -> None:
    def is_scraped(**app: Any) -> bool:
        return bool(filter_loader.get("is_scraped").j2_function(app))

    assert not is_scraped(source=str(folder))
    assert is_scraped(source=str(folder), metrics=True)
    assert is_scraped(image="blog:1")
    assert not is_scraped(image="blog:1", metrics=False)
    (folder / "wsgi.py").write_text("from flask_vantage import Vantage\n")
    assert is_scraped(source=str(folder))


def test_apps_of_the_demo_are_scraped() -> None:
    host = Host("prometheus")
    found = host.value(host.variables["__prometheus_app_targets"])
    assert sorted(one["labels"]["service_name"] for one in found) == ["storefront", "warehouse"]


def test_the_path_of_one_app_is_found_from_its_source(folder: Path) -> None:
    host = Host("flask_app", flask_app_source=str(folder))
    (app,) = host.value(host.variables["vantage_apps"])
    assert health_check(**app) == ("/", 500)


@pytest.mark.parametrize(
    ("dockerfile", "port"),
    [
        ("FROM python:3.13\nEXPOSE 5000\n", 5000),
        ("FROM python:3.13\nexpose 5000/tcp\n", 5000),
        ("FROM node AS build\nEXPOSE 3000\nFROM python:3.13\nEXPOSE 5000\n", 5000),
        ("FROM python:3.13\nEXPOSE 5000 9000\n", 8000),
        ("FROM python:3.13\nEXPOSE 5000\nEXPOSE 9000\n", 8000),
        ("FROM python:3.13\nEXPOSE 5000/udp\n", 8000),
        ("FROM python:3.13\nEXPOSE $PORT\n", 8000),
        ('ARG P=5000\nFROM python:3.13\nENV A=1 \\\n    # as upstream\n    PORT="$P"\nEXPOSE ${PORT}\n', 5000),
        ("FROM python:3.13 AS base\nEXPOSE 5000\nFROM node\nEXPOSE 3000\nFROM base\n", 5000),
        ("FROM python:3.13\n# EXPOSE 5000\n", 8000),
    ],
)
def test_the_port_is_the_one_that_the_dockerfile_exposes(folder: Path, dockerfile: str, port: int) -> None:
    (folder / "Dockerfile").write_text(dockerfile)
    assert container_port({"source": str(folder)}) == port
    assert container_port({"source": str(folder), "container_port": 7000}) == 7000


def test_the_port_of_an_image_is_the_one_that_docker_knows() -> None:
    assert container_port({"image": "blog:1"}, {"blog": 5000}) == 5000
    assert container_port({"image": "blog:1", "container_port": 7000}, {"blog": 5000}) == 7000
    assert container_port({"image": "blog:1"}) == 8000


@pytest.mark.parametrize(("words", "port"), [(["5000/tcp"], 5000), (["5000/tcp", "53/udp"], 5000), ([], 8000)])
def test_one_exposed_tcp_port_is_the_port(words: list[str], port: int) -> None:
    assert filter_loader.get("only_port").j2_function(words) == port


@pytest.mark.parametrize(("runtime", "asked"), [("systemd", ["blog"]), ("compose", [])])
def test_only_an_image_without_a_given_port_is_asked_for_it(runtime: str, asked: list[str]) -> None:
    apps = [APP, APP | {"name": "shop", "container_port": 80}, APP | {"name": "built", "source": "/srv/built"}]
    host = Host("flask_app", vantage_apps=apps, vantage_runtime=runtime)
    assert [app["name"] for app in host.value(host.variables["__flask_app_portless"])] == asked


def test_prometheus_scrapes_the_port_that_the_image_exposes() -> None:
    assert list(targets(APP, __flask_app_exposed={"blog": 5000})) == ["blog:5000"]
    assert list(targets(APP)) == ["blog:8000"]


def test_one_app_has_no_port_of_its_own_by_default() -> None:
    host = Host("flask_app", flask_app_image="site:1")
    (app,) = host.value(host.variables["vantage_apps"])
    assert "container_port" not in app


def unit(**app: Any) -> Unit:
    return Unit("blog", units(APP | app)["blog"])


def test_the_unit_says_when_the_app_is_ready() -> None:
    assert (unit().ready_below, unit(health_path="/health").ready_below) == (500, 300)
    found = unit(ready_seconds=600)
    assert found.ready_seconds == 600
    assert "TimeoutStartSec=660\n" in found.text
    assert unit().ready_seconds == 120


def test_the_unit_has_the_command_that_runs_before_the_start() -> None:
    command = 'flask db upgrade && echo "50% of $HOME"\nflask seed'
    assert unit(before_start=command).before_start == command
    assert unit().before_start == ""


def test_a_writable_directory_is_in_memory_and_belongs_to_the_apps_user() -> None:
    assert "--tmpfs=/logs:size=64m,mode=1777,uid=33,gid=5" in unit(writable=["/logs"], user="33:5").docker_arguments
    words = unit(writable=["/srv/app/logs"]).docker_arguments
    assert [word for word in words if word.startswith("--tmpfs")] == [
        "--tmpfs=/tmp:size=64m,mode=1777",
        "--tmpfs=/srv/app/logs:size=64m,mode=1777,uid=10001,gid=10001",
    ]


def test_trusted_proxies_reach_the_server() -> None:
    words = unit(trusted_proxies=["172.29.238.1", "10.0.0.0/8"]).docker_arguments
    assert "--env=VANTAGE_TRUSTED_PROXIES=172.29.238.1,10.0.0.0/8" in words
    assert not [word for word in unit().docker_arguments if "PROXIES" in word]


def test_a_user_without_an_entry_in_passwd_has_a_name() -> None:
    assert "--env=USER=app" in unit().docker_arguments
    assert "--env=USER=me" in unit(environment={"USER": "me"}).docker_arguments


def test_home_is_writable_in_an_image_built_without_a_dockerfile(folder: Path) -> None:
    app = {"name": "blog", "source": str(folder), "port": 8000}
    assert "--env=HOME=/tmp" in Unit("blog", units(app)["blog"]).docker_arguments
    (folder / "Dockerfile").write_text("FROM scratch\n")
    assert not [word for word in Unit("blog", units(app)["blog"]).docker_arguments if word.startswith("--env=HOME")]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("writable", ["logs"], "logs"),
        ("writable", ["/a:/b"], "/a:/b"),
        ("ready_seconds", 0, "0"),
        ("trusted_proxies", ["caddy"], "caddy"),
    ],
)
def test_invalid_values_of_the_keys_are_refused(key: str, value: Any, word: str) -> None:
    (problem,) = variables.one_app_problems(APP | {key: value})
    assert key in problem
    assert word in problem


def test_variables_of_one_app_are_keys_of_it(folder: Path) -> None:
    given = {"before_start": "flask db upgrade", "ready_seconds": "300", "writable": "/srv/app/logs,/srv/app/cache"}
    host = Host(
        "flask_app", flask_app_source=str(folder), **{f"flask_app_{key}": value for key, value in given.items()}
    )
    (app,) = host.value(host.variables["vantage_apps"])
    assert app["before_start"] == "flask db upgrade"
    assert app["ready_seconds"] == 300
    assert app["writable"] == ["/srv/app/logs", "/srv/app/cache"]
