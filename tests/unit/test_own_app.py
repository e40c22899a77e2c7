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


apps = load_module(ROLES / "vantage/filter_plugins/apps.py")
source = load_module(ROLES / "flask_app/filter_plugins/source.py")


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py").replace("_txt", ".txt").replace("_toml", ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


FACTORY = "from flask import Flask\ndef create_app(config=None):\n    return Flask(__name__)\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"app_py": "import flask\napp = flask.Flask(__name__)\n"}, "app:app"),
        ({"hello_py": "from flask import Flask\nsite: Flask = Flask('x')\n"}, "hello:site"),
        ({"wsgi_py": "from blog import create_app\napplication = create_app()\n"}, "wsgi:application"),
        ({"blog____init___py": FACTORY}, "blog:create_app"),
        ({"blog____init___py": "", "blog__web_py": "", "blog__app_py": FACTORY}, "blog.app:create_app"),
        ({"app_py": "try:\n    import flask\n    app = flask.Flask('x')\nexcept ImportError:\n    raise\n"}, "app:app"),
        ({"tests____init___py": FACTORY, "run_py": FACTORY}, "run:create_app"),
        ({"app_py": "from flask import Flask\nother = Flask('o')\napp = Flask('a')\n"}, "app:app"),
    ],
)
def test_the_flask_object_is_found(tmp_path: Path, files: dict[str, str], found: str) -> None:
    folder = write(tmp_path, **{name.replace("____init__", "__@@"): text for name, text in files.items()})
    for path in list(folder.rglob("@@.py")):
        path.rename(path.with_name("__init__.py"))
    assert apps.find_object(str(folder)) == {"object": found, "path": ""}


def test_a_package_below_src_is_found(tmp_path: Path) -> None:
    (tmp_path / "src/blog").mkdir(parents=True)
    (tmp_path / "src/blog/__init__.py").write_text(FACTORY)
    assert apps.find_object(str(tmp_path)) == {"object": "blog:create_app", "path": "src"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no Flask app"]),
        ({"setup_py": "app = 1\n", "calc_py": "app = 1\n"}, ["calc.py", "create_app", "flask_app_object"]),
        ({"app_py": "def create_app(config):\n    return 1\n"}, ["without required arguments"]),
        ({"app_py": "def broken(:\n"}, ["app.py:1", "syntax error"]),
        ({"inner__app_py": "import flask\napp = flask.Flask('x')\n"}, ["no Flask app", "/inner?"]),
    ],
)
def test_a_folder_without_an_app_is_refused_with_what_was_looked_for(
    tmp_path: Path, files: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        apps.find_object(str(write(tmp_path, **files)))
    for word in [str(tmp_path), *words]:
        assert word in str(error.value)


def test_a_source_that_names_no_packages_is_refused(tmp_path: Path) -> None:
    write(tmp_path, app_py=FACTORY)
    with pytest.raises(ValueError, match=r"requirements\.txt"):
        apps.app_recipe({"source": str(tmp_path)})


def test_the_instance_folder_is_kept_where_flask_looks_for_it(tmp_path: Path) -> None:
    (tmp_path / "src/blog").mkdir(parents=True)
    (tmp_path / "src/blog/__init__.py").write_text(FACTORY)
    write(tmp_path, pyproject_toml="[project]\n")
    recipe = apps.app_recipe({"source": str(tmp_path)})
    assert (recipe["base"], recipe["data"], recipe["requirements"]) == (
        "/srv/app/src", "/srv/app/src/instance", "pyproject.toml",
    )  # fmt: skip


def test_a_folder_with_a_dockerfile_is_built_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM --platform=linux/amd64 docker.io/vantage/shop:0.1.0 AS x\nFROM x\n")
    assert apps.app_recipe({"source": str(tmp_path)}) == {"dockerfile": True, "from": ["vantage/shop:0.1.0", "x"]}


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
    found = source.pip_settings(listed)
    assert found == {
        "cert": "/ca.pem",
        "index-url": "https://index.example.org/simple",
        "extra-index-url": "https://a.example.org https://b.example.org",
    }
    assert "cert = /run/pip/ca.pem" in source.pip_config(found)
    assert source.pip_arguments(found) == {
        "PIP_INDEX_URL": "https://index.example.org/simple",
        "PIP_EXTRA_INDEX_URL": "https://a.example.org https://b.example.org",
    }


def test_how_it_is_built_is_part_of_what_is_built(tmp_path: Path) -> None:
    write(tmp_path, app_py=FACTORY)
    assert source.source_digest(str(tmp_path)) != source.source_digest(str(tmp_path), "recipe")
    (tmp_path / "instance").mkdir()
    (tmp_path / "instance/blog.sqlite").write_text("secret")
    assert source.source_files(str(tmp_path)) == ["app.py"]
