"""What a folder of source is taken for, without running any of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from rendering import ROLES, Host


def load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sources = load_module(ROLES / "vantage/filter_plugins/sources.py")
source = load_module(ROLES / "flask_app/filter_plugins/source.py")
pip = load_module(ROLES / "flask_app/filter_plugins/pip_settings.py")


def write(folder: Path, files: dict[str, str] | None = None, **more: str) -> Path:
    """Write files by path; a keyword `app_py` stands for app.py."""
    named = {
        name.replace("_py", ".py").replace("_txt", ".txt").replace("_toml", ".toml"): t for name, t in more.items()
    }
    for name, text in ((files or {}) | named).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


FACTORY = "from flask import Flask\ndef create_app(config=None):\n    return Flask(__name__)\n"
APP = "import flask\napp = flask.Flask(__name__)\n"
CONNEXION = "import connexion\nconnex = connexion.FlaskApp(__name__)\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"app.py": APP}, "app:app"),
        ({"hello.py": "from flask import Flask\nsite: Flask = Flask('x')\n"}, "hello:site"),
        ({"wsgi.py": "from blog import create_app\napplication = create_app()\n"}, "wsgi:application"),
        ({"blog/__init__.py": FACTORY}, "blog:create_app"),
        ({"blog/__init__.py": "", "blog/web.py": "", "blog/app.py": FACTORY}, "blog.app:create_app"),
        ({"app.py": "try:\n    import flask\n    app = flask.Flask('x')\nexcept ImportError:\n    raise\n"}, "app:app"),
        ({"tests/__init__.py": FACTORY, "run.py": FACTORY}, "run:create_app"),
        ({"test_app.py": APP, "tests.py": APP, "shop_test.py": APP, "shop/__init__.py": FACTORY}, "shop:create_app"),
        ({"app.py": "from flask import Flask\nother = Flask('o')\napp = Flask('a')\n"}, "app:app"),
        # Imported from this source.
        ({"wsgi.py": "from shop import app as application\n", "shop/__init__.py": APP}, "wsgi:application"),
        ({"wsgi.py": "from shop import app\n", "shop/__init__.py": "from .core import app\n", "shop/core.py": APP}, "wsgi:app"),
        ({"shop/__init__.py": "from .core import *\n", "shop/core.py": APP}, "shop:app"),
        ({"main.py": "from web.factory import create_app\n", "web/factory.py": FACTORY}, "main:create_app"),
        # A script that imports the app is not the one to serve.
        ({"seed.py": "from shop import app\n", "shop/__init__.py": APP}, "shop:app"),
        # Other frameworks on Flask, and subclasses.
        ({"app.py": "from apiflask import APIFlask\napp = APIFlask(__name__)\n"}, "app:app"),
        ({"app.py": "from flask_openapi3 import OpenAPI\napp = OpenAPI(__name__)\n"}, "app:app"),
        ({"app.py": "import dash\napp = dash.Dash(__name__)\nserver = app.server\n"}, "app:server"),
        ({"app.py": "from dash import Dash\napp = Dash(__name__)\n"}, "app:app.server"),
        ({"app.py": CONNEXION + "app = connex.app\n"}, "app:app"),
        ({"app.py": "from flask import Flask\nclass Shop(Flask):\n    pass\nshop = Shop('x')\n"}, "app:shop"),
        ({"app.py": "from shop import Shop\napp = Shop('x')\n", "shop.py": "import flask\nclass Shop(flask.Flask): ...\n"}, "app:app"),
        ({"app.py": "from flask import Flask as F\napp = F('x')\n"}, "app:app"),
        # A folder that is no package.
        ({"app/main.py": APP}, "app.main:app"),
    ],
)  # fmt: skip
def test_the_flask_object_is_found(tmp_path: Path, files: dict[str, str], found: str) -> None:
    result = sources.find_app(str(write(tmp_path, files)))
    assert (result["object"], result["path"]) == (found, "")


def test_a_package_below_src_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"src/blog/__init__.py": FACTORY})
    assert sources.find_app(str(tmp_path)) == {"object": "blog:create_app", "path": "src", "home": "src"}


def test_a_folder_below_src_that_is_no_package_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"src/login/app.py": APP})
    assert sources.find_app(str(tmp_path)) == {"object": "login.app:app", "path": "src", "home": "src"}


def test_a_module_that_imports_its_neighbours_is_imported_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, {"app/main.py": "from models import db\n" + APP, "app/models.py": "db = 1\n"})
    assert sources.find_app(str(tmp_path)) == {"object": "main:app", "path": "app", "home": "app"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no Flask app"]),
        ({"setup.py": "app = 1\n", "calc.py": "app = 1\n"}, ["calc.py", "create_app", "flask_app_object"]),
        ({"app.py": "def create_app(config):\n    return 1\n"}, ["app.py:1", "create_app", "config", "wsgi.py"]),
        ({"app.py": "def broken(:\n"}, ["app.py:1", "syntax error"]),
        ({"app.py": APP + "app.run(debug=True)\n"}, ["app.py:3", "app.run()", "__main__"]),
        ({"app.py": CONNEXION}, ["app.py:2", "Connexion 3", "Dockerfile", "connex.app"]),
        ({"one/app.py": APP, "two/app.py": APP}, ["one.app:app", "two.app:app", "flask_app_object"]),
        ({"a/b/app.py": APP}, ["no Flask app", "flask_app_object"]),
        ({"a-b/app.py": APP, "a-b/requirements.txt": "flask"}, ["no Flask app", "/a-b?"]),
    ],
)
def test_a_folder_without_an_app_is_refused_with_what_was_looked_for(
    tmp_path: Path, files: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        sources.find_app(str(write(tmp_path, files)))
    for word in [str(tmp_path), *words]:
        assert word in str(error.value)


def test_development_server_below_main_is_no_obstacle(tmp_path: Path) -> None:
    write(tmp_path, app_py=APP + "if __name__ == '__main__':\n    app.run()\n")
    assert sources.find_app(str(tmp_path))["object"] == "app:app"


def test_a_source_that_names_no_packages_is_refused(tmp_path: Path) -> None:
    write(tmp_path, app_py=FACTORY)
    with pytest.raises(ValueError, match=r"requirements\.txt.*setup\.py.*Pipfile"):
        sources.app_recipe({"source": str(tmp_path)})


def test_folder_with_the_packages_is_suggested_only_if_it_can_be_deployed(tmp_path: Path) -> None:
    write(tmp_path, {"backend/app.py": APP})
    with pytest.raises(ValueError, match="no dependencies") as error:
        sources.app_recipe({"source": str(tmp_path)})
    assert "backend" not in str(error.value)
    write(tmp_path, {"backend/requirements.txt": "flask"})
    with pytest.raises(ValueError, match=r"/backend\?"):
        sources.app_recipe({"source": str(tmp_path)})
    assert sources.app_recipe({"source": str(tmp_path / "backend")})["object"] == "app:app"


@pytest.mark.parametrize(
    ("files", "dependencies", "packages"),
    [
        ({"requirements.txt": "flask"}, "requirements.txt", ["--requirement", "requirements.txt"]),
        (
            {"requirements.txt": "flask", "pyproject.toml": "[build-system]\n[project]\n"},
            "requirements.txt",
            ["--requirement", "requirements.txt", "--editable", "."],
        ),
        (
            {"requirements.txt": "flask", "pyproject.toml": "[tool.ruff]\n"},
            "requirements.txt",
            ["--requirement", "requirements.txt"],
        ),
        ({"pyproject.toml": "[build-system]\n[project]\n"}, "pyproject.toml", ["--editable", "."]),
        # No package: its folders may be what setuptools refuses to install.
        (
            {"pyproject.toml": '[project]\ndependencies = ["flask>=3", "rich"]\n'},
            "pyproject.toml",
            ["flask>=3", "rich"],
        ),
        ({"setup.py": ""}, "setup.py", ["--editable", "."]),
        (
            {"Pipfile": '[packages]\nflask = "*"\nrich = ">=13"\nx = {version = "==1", extras = ["a"]}\n'},
            "Pipfile",
            ["flask", "rich>=13", "x[a]==1"],
        ),
        (
            {
                "Pipfile": "",
                "Pipfile.lock": '{"default": {"flask": {"version": "==3.1.0", "markers": "python_version > \'3\'"}}}',
            },
            "Pipfile.lock",
            ["flask==3.1.0; python_version > '3'"],
        ),
    ],
)
def test_dependencies_are_read_where_people_list_them(
    tmp_path: Path, files: dict[str, str], dependencies: str, packages: list[str]
) -> None:
    recipe = sources.app_recipe({"source": str(write(tmp_path, {"app.py": APP} | files))})
    assert (recipe["dependencies"], recipe["packages"]) == (dependencies, packages)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"pyproject.toml": "[project\n"}, ["pyproject.toml", "TOML"]),
        ({"pyproject.toml": "[tool.ruff]\n"}, ["pyproject.toml", "dependencies"]),
        ({"Pipfile": '[packages]\nx = {git = "https://x"}\n'}, ["Pipfile", "x"]),
        ({"Pipfile.lock": "{"}, ["Pipfile.lock", "JSON"]),
    ],
)
def test_list_of_packages_that_cannot_be_read_is_refused(
    tmp_path: Path, files: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        sources.app_recipe({"source": str(write(tmp_path, {"app.py": APP} | files))})
    for word in words:
        assert word in str(error.value)


def test_the_instance_folder_is_kept_where_flask_looks_for_it(tmp_path: Path) -> None:
    write(tmp_path, {"src/blog/__init__.py": FACTORY, "pyproject.toml": "[build-system]\n"})
    recipe = sources.app_recipe({"source": str(tmp_path)})
    assert recipe["python_path"] == ["/srv/app/src", "/srv/app"]
    assert recipe["data"] == "/srv/app/src/instance"


def test_module_beside_src_imports_from_both(tmp_path: Path) -> None:
    """As in Flask's example for Celery."""
    write(tmp_path, {"make_celery.py": "from task_app import create_app\nflask_app = create_app()\n"})
    write(tmp_path, {"src/task_app/__init__.py": FACTORY, "pyproject.toml": "[build-system]\n"})
    recipe = sources.app_recipe({"source": str(tmp_path)})
    assert recipe["object"] == "make_celery:flask_app"
    assert recipe["python_path"] == ["/srv/app", "/srv/app/src"]
    assert recipe["data"] == "/srv/app/src/instance"


def test_packages_of_an_environment_do_not_count_as_the_apps_code(tmp_path: Path) -> None:
    write(tmp_path, {"app.py": APP, "py3/pyvenv.cfg": "", "py3/lib/x.py": "from flask_vantage import Vantage\n"})
    assert not sources.uses_vantage(str(tmp_path))
    write(tmp_path, {"wsgi.py": "from flask_vantage import Vantage\n"})
    assert sources.uses_vantage(str(tmp_path))


def test_a_folder_with_a_dockerfile_is_built_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM --platform=linux/amd64 docker.io/vantage/shop:0.1.0 AS x\nFROM x\n"
        "COPY --from=docker.io/vantage/other:1 /opt/wheels /w\nRUN --mount=type=bind,from=wheels:2,target=/w pip install x\n"
    )
    assert sources.app_recipe({"source": str(tmp_path)}) == {
        "dockerfile": True, "from": ["vantage/shop:0.1.0", "x", "vantage/other:1", "wheels:2"], "data": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dockerfile", "data"),
    [
        ("FROM python\nVOLUME /database\n", "/database"),
        ('FROM python\nARG dir=/config\nVOLUME ["$dir"]\n', "/config"),
        # One directory is kept; which one is unknown.
        ("FROM python\nVOLUME /db /config\n", ""),
        ("FROM python AS build\nVOLUME /cache\nFROM python\n", ""),
    ],
)
def test_only_volume_of_a_dockerfile_is_kept(tmp_path: Path, dockerfile: str, data: str) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    assert sources.app_recipe({"source": str(tmp_path)})["data"] == data


def test_one_variable_replaces_the_demo_shop(tmp_path: Path) -> None:
    folder = write(tmp_path / "My_Blog", app_py=FACTORY)
    host = Host("flask_app", flask_app_source=str(folder), flask_app_port="8123")
    (app,) = host.value(host.variables["vantage_apps"])
    assert (app["name"], app["port"], app["metrics"]) == ("my-blog", 8123, False)
    write(folder, app_py="from flask_vantage import Vantage\n" + FACTORY)
    (app,) = host.value(host.variables["vantage_apps"])
    assert app["metrics"]
    host = Host("prometheus", flask_app_image="registry.example.org:5000/team/site:1.2")
    assert host.value(host.variables["vantage_apps"])[0]["name"] == "site"


def test_pip_here_tells_where_the_host_finds_packages() -> None:
    listed = "\n".join(
        [
            ":env:.cert='/ca.pem'", ":env:.find-links='/wheels'", "global.index-url='https://index.example.org/simple'",
            "global.cert='/other.pem'", "global.extra-index-url='\\nhttps://a.example.org\\nhttps://b.example.org'",
        ]
    )  # fmt: skip
    found = pip.pip_settings(listed)
    assert found == {
        "cert": "/ca.pem",
        "index-url": "https://index.example.org/simple",
        "extra-index-url": "https://a.example.org https://b.example.org",
    }
    assert "cert = /run/pip/ca.pem" in pip.pip_config(found)
    assert pip.pip_arguments(found) == {
        "PIP_INDEX_URL": "https://index.example.org/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.example.org https://b.example.org",
    }
