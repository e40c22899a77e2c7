"""Finds the Flask app in a source folder, and derives apps and their services from the settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Where `flask run` looks first, then other common module names.
MODULES = ("app", "wsgi", "application", "main", "server", "run")
OBJECTS = ("app", "application")
FACTORIES = ("create_app", "make_app")
# Tests create apps too, but not the one to deploy.
SKIPPED_FOLDERS = {"tests", "test", "docs", "instance", "migrations", "node_modules", "build", "dist"}


class SourceError(ValueError):
    """No image can be built from the source folder; the text names folder, reason and fix."""


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, including those within `if` and `try`."""
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
    """Names in a module that are a Flask app or its factory, the likeliest first.

    Raises SourceError for a syntax error.
    """
    try:
        module = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise SourceError(f"{path}:{error.lineno}: syntax error: {error.msg}") from None
    except ValueError as error:
        raise SourceError(f"{path}: syntax error: {error}") from None
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
    """The Python files of a folder that may define the app, the likeliest first."""

    def rank(path: Path) -> tuple[int, str]:
        return (MODULES.index(path.stem) if path.stem in MODULES else len(MODULES), path.name)

    files = sorted((p for p in folder.glob("*.py") if p.stem not in {"setup", "conftest", "__init__"}), key=rank)
    packages = sorted(p.parent for p in folder.glob("*/__init__.py") if p.parent.name not in SKIPPED_FOLDERS)
    for package in packages:
        files += [package / "__init__.py"]
        files += [package / f"{name}.py" for name in MODULES if (package / f"{name}.py").is_file()]
    return files


def find_object(folder: str) -> dict[str, str]:
    """Where the Flask app is: `object` as module:name, `path` as the import folder below the source ('' or 'src').

    The code is parsed, never imported. Raises SourceError if there is no app.
    """
    root, looked = Path(folder), []
    for path in ("", "src"):
        base = root / path
        for file in modules_of(base) if base.is_dir() else []:
            looked.append(str(file.relative_to(root)))
            if names := objects_in(file):
                module = ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
                return {"object": f"{module}:{names[0]}", "path": path}
    inner = [p for p in sorted(root.iterdir()) if p.is_dir() and p.name not in SKIPPED_FOLDERS and has_app(p)]
    fix = f"Did you mean {inner[0]}?" if inner else "Set `object` (flask_app_object) to package.module:name."
    raise SourceError(
        f"no Flask app in {folder}: no `app = Flask(…)` and no `create_app()` without required arguments in "
        f"{', '.join(looked[:8]) or 'any Python file'}. {fix}"
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
        if not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in path.relative_to(folder).parts)
    )


def app_recipe(app: Mapping[str, Any]) -> dict[str, Any]:
    """How the image of an app with a source folder is built; raises SourceError if it cannot be built.

    `dockerfile` is whether the folder has its own; then `from` lists its base images. Otherwise: `object`, `path`,
    `requirements` (the file that lists the dependencies), `base` (the import folder in the image), `instrument`, and
    `data`, Flask's instance folder.
    """
    folder = Path(app["source"]).expanduser()
    if not folder.is_dir():
        raise SourceError(f"source {folder} is not a directory. Set it to the app's directory on the controller.")
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
            f"no requirements.txt or pyproject.toml in {folder}. List the app's dependencies in one of them."
        )
    base = "/srv/app" + (f"/{found['path']}" if found["path"] else "")
    return {
        "dockerfile": False, **found, "requirements": files[0], "base": base,
        "instrument": str(app.get("instrument") or "none"), "data": f"{base}/instance",
    }  # fmt: skip


def own_apps(given: Mapping[str, Any], demo: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The app of flask_app_source or flask_app_image as a list of one, or the demo's apps if both are empty.

    `given` maps keys to the variables flask_app_<key>. An app without flask_vantage has no /metrics.
    """
    app = {key: value for key, value in given.items() if value not in ("", None, [], {})}
    # Values of `-e key=value` are text.
    app |= {
        key: int(app[key])
        for key in ("port", "container_port", "replicas", "ready_seconds")
        if str(app.get(key)).isdigit()
    }
    app |= {
        key: str(app[key]).lower() in {"true", "yes", "1", "on"} for key in ("metrics", "shared_data") if key in app
    }
    app |= {key: app[key].split(",") for key in ("writable", "trusted_proxies") if isinstance(app.get(key), str)}
    if not app.get("source") and not app.get("image"):
        return demo
    folder = Path(str(app.get("source", ""))).expanduser().resolve() if app.get("source") else None
    title = folder.name if folder else str(app["image"]).rpartition("/")[2].partition("@")[0].partition(":")[0]
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-")
    has_vantage = folder is not None and folder.is_dir() and uses_vantage(str(folder))
    # Absolute, because tasks on the controller may run in another working directory.
    app |= {"source": str(folder)} if folder else {}
    return [{"name": name, "port": 8000, "metrics": has_vantage} | app]


def app_services(apps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The services of the apps, in order: an app with `replicas: 3` has the services blog, blog-2 and blog-3.

    Each has `name`, `app`, `number` (from 1), `port` on the host (consecutive for replicas), the app's `address`, and
    `replica_of`, which is empty for the first: it does not depend on the number of replicas.
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
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "app_recipe": app_recipe,
            "app_services": app_services,
            "own_apps": own_apps,
            "uses_vantage": uses_vantage,
        }
