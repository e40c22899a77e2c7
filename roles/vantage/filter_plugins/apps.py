"""What a folder with a Flask app holds, and the apps that the one-line settings ask for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Where `flask run` looks first, and what else people call the module.
MODULES = ("app", "wsgi", "application", "main", "server", "run")
OBJECTS = ("app", "application")
FACTORIES = ("create_app", "make_app")
# Tests make apps too, and none of them is meant.
PASSED_OVER = {"tests", "test", "docs", "instance", "migrations", "node_modules", "build", "dist"}


class SourceError(ValueError):
    """The folder cannot become an app; the text names folder, reason and fix."""


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those within `if` and `try` too."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statement, (ast.If, ast.Try)):
                yield from top_level(getattr(statement, field, []))


def is_app(value: ast.expr | None) -> bool:
    """Whether an expression calls Flask or a factory."""
    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in {"Flask", *FACTORIES}


def objects_in(path: Path) -> list[str]:
    """Names in a module that are a Flask app or make one, the likeliest first; raises SourceError for a syntax error."""
    try:
        module = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise SourceError(
            f"{path}, line {error.lineno}, is no Python: {error.msg}. Correct it: the app could not be started."
        ) from None
    except ValueError as error:
        raise SourceError(f"{path} is no Python: {error}. Correct it: the app could not be started.") from None
    apps, factories = [], []
    for statement in top_level(module.body):
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and is_app(statement.value):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            apps += [target.id for target in targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.FunctionDef) and statement.name in FACTORIES:
            needed = len(statement.args.args) + len(statement.args.posonlyargs) - len(statement.args.defaults)
            if needed <= 0 and all(statement.args.kw_defaults):
                factories.append(statement.name)
    return sorted(apps, key=lambda name: OBJECTS.index(name) if name in OBJECTS else len(OBJECTS)) + factories


def modules_of(folder: Path) -> list[Path]:
    """The files of a folder that may hold the app, the likeliest first."""

    def likely(path: Path) -> tuple[int, str]:
        return (MODULES.index(path.stem) if path.stem in MODULES else len(MODULES), path.name)

    files = sorted((p for p in folder.glob("*.py") if p.stem not in {"setup", "conftest", "__init__"}), key=likely)
    packages = sorted(p.parent for p in folder.glob("*/__init__.py") if p.parent.name not in PASSED_OVER)
    for package in packages:
        files += [package / "__init__.py"]
        files += [package / f"{name}.py" for name in MODULES if (package / f"{name}.py").is_file()]
    return files


def find_object(folder: str) -> dict[str, str]:
    """Where the Flask app is: `object` as module:name, `path` as the folder below that Python looks in ('' or 'src').

    Nothing is imported: the code is only read. Raises SourceError where there is none.
    """
    root, looked = Path(folder), []
    for path in ("", "src"):
        base = root / path
        for file in modules_of(base) if base.is_dir() else []:
            looked.append(str(file.relative_to(root)))
            if names := objects_in(file):
                module = ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
                return {"object": f"{module}:{names[0]}", "path": path}
    inner = [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name not in PASSED_OVER and has_app(p)]
    hint = f" There is one in {root / inner[0]}: give that folder." if inner else ""
    raise SourceError(
        f"{folder} holds no Flask app: there is no `app = Flask(…)` and no `create_app()` without required arguments in "
        f"{', '.join(looked[:8]) or 'it, and not one Python file either'}.{hint or ' Give the folder that holds the app, or name it with'}"
        f"{'' if hint else ' the key `object` (flask_app_object), as package.module:name.'}"
    )


def has_app(folder: Path) -> bool:
    try:
        return any(objects_in(file) for file in modules_of(folder))
    except SourceError:
        return False


def uses_vantage(folder: str) -> bool:
    """Whether any code of the folder imports flask_vantage."""
    pattern = re.compile(r"^\s*(?:from|import)\s+flask_vantage\b", re.MULTILINE)
    return any(
        pattern.search(path.read_text(encoding="utf-8", errors="replace"))
        for path in Path(folder).rglob("*.py")
        if not any(part.startswith(".") or part in PASSED_OVER for part in path.relative_to(folder).parts)
    )


def app_recipe(app: Mapping[str, Any]) -> dict[str, Any]:
    """How the image of an app with a source folder is built; raises SourceError where it cannot be.

    `dockerfile`: it has one of its own, and `from` are the images it is put on. Otherwise `object`, `path`, `requirements` (the file
    that names what to install), `instrument` and `data`, where Flask keeps the instance folder.
    """
    folder = Path(app["source"]).expanduser()
    if not folder.is_dir():
        raise SourceError(f"the source {folder} is no folder. Give the folder on this machine that holds the app.")
    if (folder / "Dockerfile").is_file():
        text = (folder / "Dockerfile").read_text(encoding="utf-8", errors="replace")
        return {
            "dockerfile": True,
            "from": re.findall(r"^FROM\s+(?:--\S+\s+)*(?:docker\.io/)?(\S+)", text, re.MULTILINE | re.IGNORECASE),
        }
    found = find_object(str(folder)) if not app.get("object") else {"object": str(app["object"]), "path": ""}
    if app.get("object") and not (folder / found["object"].replace(".", "/").partition("/")[0]).exists():
        found["path"] = "src" if (folder / "src").is_dir() else ""
    files = [name for name in ("requirements.txt", "pyproject.toml") if (folder / name).is_file()]
    if not files:
        raise SourceError(
            f"{folder} has neither requirements.txt nor pyproject.toml, so nobody knows what its app needs. "
            "Write a requirements.txt; one line `flask` may do."
        )
    base = "/srv/app" + (f"/{found['path']}" if found["path"] else "")
    return {
        "dockerfile": False, **found, "requirements": files[0], "base": base,
        "instrument": str(app.get("instrument") or "none"), "data": f"{base}/instance",
    }  # fmt: skip


def own_apps(given: Mapping[str, Any], demo: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The app that flask_app_source or flask_app_image asks for, or the demo's where there is neither.

    `given` has the variables flask_app_<key> by their keys. Without flask_vantage an app has no /readyz and no /metrics.
    """
    app = {key: value for key, value in given.items() if value not in ("", None, [], {})}
    # What comes from a command line is text.
    app |= {key: int(app[key]) for key in ("port", "container_port", "replicas") if str(app.get(key)).isdigit()}
    app |= {
        key: str(app[key]).lower() in {"true", "yes", "1", "on"} for key in ("metrics", "shared_data") if key in app
    }
    if not app.get("source") and not app.get("image"):
        return demo
    folder = Path(str(app.get("source", ""))).expanduser().resolve() if app.get("source") else None
    called = folder.name if folder else str(app["image"]).rpartition("/")[2].partition("@")[0].partition(":")[0]
    name = re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")[:40].strip("-")
    ours = folder is not None and folder.is_dir() and uses_vantage(str(folder))
    # Once for all: a task on this machine may have another folder to work in.
    app |= {"source": str(folder)} if folder else {}
    return [{"name": name, "port": 8000, "health_path": "/readyz" if ours else "/", "metrics": ours} | app]


def app_services(apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The services that the apps are, in their order: an app of `replicas: 3` is the services blog, blog-2 and blog-3.

    Each has its `name`, the `app` it is one of, its `number` from 1, its `port` on the host (the next ones for the replicas), the
    app's `address`, and `replica_of`, empty for the first, which is what the app would be alone.
    """
    return [
        {
            "name": app["name"] if number == 1 else f"{app['name']}-{number}",
            "app": app["name"],
            "number": number,
            "port": int(app["port"]) + number - 1,
            "address": app.get("address") or "",
            "replica_of": "" if number == 1 else app["name"],
        }
        for app in apps
        for number in range(1, int(app.get("replicas") or 1) + 1)
    ]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"app_recipe": app_recipe, "app_services": app_services, "own_apps": own_apps}
