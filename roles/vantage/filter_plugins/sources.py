"""Finds the Flask app in a source folder and what its image is built with. The code is parsed, never imported."""

from __future__ import annotations

import ast
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Where `flask run` looks first, then other common module names.
MODULES = ("app", "wsgi", "application", "main", "server", "run")
OBJECTS = ("app", "application", "server")
FACTORIES = ("create_app", "make_app")
# What a class or factory makes. Dash keeps a Flask app in `server`; Connexion 2 in `app`, Connexion 3 is no WSGI app.
MAKES = {"Flask": "app", "APIFlask": "app", "OpenAPI": "app", "Dash": "dash"} | dict.fromkeys(FACTORIES, "app")
CONNEXION = dict.fromkeys(("FlaskApp", "App", "AsyncApp"), "connexion")
KEPT_IN = {"dash": "server", "connexion": "app"}
# Tests and examples create apps too, but not the one to deploy.
SKIPPED_FOLDERS = {
    "tests", "test", "docs", "examples", "instance", "migrations", "node_modules", "build", "dist", "venv", "env",
}  # fmt: skip
# Modules that never hold the app to deploy, the tests by the names that pytest and unittest look for.
SKIPPED_MODULES = re.compile(r"setup|conftest|__init__|tests?|tests?_.*|.*_tests?")
SOURCE = "/srv/app"
# What lists the dependencies, the first that exists.
DEPENDENCIES = ("requirements.txt", "pyproject.toml", "setup.py", "Pipfile.lock", "Pipfile")


class SourceError(ValueError):
    """No image can be built from the source folder; the text names folder, reason and fix."""


# One module -----------------------------------------------------------------------------------------------------------


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, including those within `if`, `try` and `with`."""
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                yield from statements(getattr(statement, field, []))


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file; raises SourceError for a syntax error."""
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise SourceError(f"{path}:{error.lineno}: syntax error: {error.msg}") from None
    except ValueError as error:
        raise SourceError(f"{path}: syntax error: {error}") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}. Make it readable.") from None


def last_name(expression: ast.expr | None) -> str:
    """`Flask` of `Flask` and of `flask.Flask`; empty for any other expression."""
    return expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")


def missing_arguments(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments without a default."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    needed = arguments[: len(arguments) - len(function.args.defaults)]
    keywords = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return [argument.arg for argument in [*needed, *(one for one, default in keywords if default is None)]]


class Module:
    """What the names of one module stand for.

    `makes` are classes and factories, `objects` what they made, each with its kind (a value of MAKES) and the file that
    defines it. `refused` are reasons, each with a fix, why something that looks like an app is none.
    """

    def __init__(self, path: Path, bases: tuple[Path, ...], reading: frozenset[Path] = frozenset()) -> None:
        """Read the file; `bases` are the import folders. Raises SourceError for a syntax error."""
        self.path, self.bases, self.reading = path, bases, reading | {path}
        self.makes: dict[str, tuple[str, Path]] = {}
        self.objects: dict[str, tuple[str, Path]] = {}
        self.imported: set[str] = set()
        self.refused: list[str] = []
        tree = parse(path)
        for statement in statements(tree.body):
            if isinstance(statement, ast.ImportFrom):
                self.read_import(statement)
            elif isinstance(statement, ast.ClassDef):
                for kind in filter(None, map(self.made_by, statement.bases)):
                    self.makes[statement.name] = kind
            elif isinstance(statement, ast.FunctionDef) and statement.name in FACTORIES:
                self.read_factory(statement)
            elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
                self.read_assignment(statement)
        self.starts_server = next(filter(None, map(self.server_start, tree.body)), "")

    def read_import(self, statement: ast.ImportFrom) -> None:
        file = self.file_of(statement)
        if file in self.reading:
            return
        other = Module(file, self.bases, self.reading) if file else None
        for alias in statement.names:
            name = alias.asname or alias.name
            if other:
                names = [*other.makes, *other.objects] if alias.name == "*" else [alias.name]
                for original in names:
                    target = original if alias.name == "*" else name
                    self.makes |= {target: other.makes[original]} if original in other.makes else {}
                    self.objects |= {target: other.objects[original]} if original in other.objects else {}
                    self.imported.add(target)
            elif (statement.module or "").partition(".")[0] == "connexion" and alias.name in CONNEXION:
                self.makes[name] = (CONNEXION[alias.name], self.path)
            elif alias.name in MAKES:
                self.makes[name] = (MAKES[alias.name], self.path)
                self.imported.add(name)

    def file_of(self, statement: ast.ImportFrom) -> Path | None:
        """The file of this source that a `from … import` reads, or None if it is a package from elsewhere."""
        if statement.level > len(self.path.parents):
            return None
        parts = statement.module.split(".") if statement.module else []
        for root in [self.path.parents[statement.level - 1]] if statement.level else self.bases:
            target = root.joinpath(*parts)
            for file in (*([target.with_suffix(".py")] if parts else []), target / "__init__.py"):
                if file.is_file():
                    return file
        return None

    def read_factory(self, function: ast.FunctionDef) -> None:
        missing = missing_arguments(function)
        if not missing:
            self.makes[function.name] = ("app", self.path)
            return
        self.refused.append(
            f"{self.path}:{function.lineno}: {function.name}() has required arguments: {', '.join(missing)} (allowed: a "
            f"factory without required arguments). Give them defaults, or add a file wsgi.py that imports "
            f"{function.name} and contains `app = {function.name}(…)` with the arguments."
        )

    def read_assignment(self, statement: ast.Assign | ast.AnnAssign) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value, made = statement.value, None
        if isinstance(value, ast.Call):
            made = self.made_by(value.func)
        elif isinstance(value, ast.Name):
            made = self.objects.get(value.id)
        elif isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
            kind, file = self.objects.get(value.value.id, ("", self.path))
            made = ("app", file) if kind in KEPT_IN and value.attr == KEPT_IN[kind] else None
        for target in targets if made else []:
            if isinstance(target, ast.Name) and made:
                self.objects[target.id] = made
                self.imported.discard(target.id)
                if made[0] == "connexion":
                    self.refused.append(
                        f"{self.path}:{statement.lineno}: {target.id} is a Connexion app, and Connexion 3 needs an ASGI "
                        "server. Add a Dockerfile that starts one; for Connexion 2, add a line "
                        f"`application = {target.id}.app`."
                    )

    def made_by(self, called: ast.expr) -> tuple[str, Path] | None:
        """What an expression makes when it is called or derived from."""
        name = last_name(called)
        if isinstance(called, ast.Attribute):
            is_connexion = last_name(called.value) == "connexion" and name in CONNEXION
            kind = CONNEXION[name] if is_connexion else MAKES.get(name)
        else:
            # A factory that comes from elsewhere counts by its name.
            kind = "app" if name in FACTORIES else None
            if name in self.makes:
                return self.makes[name]
        return (kind, self.path) if kind else None

    def server_start(self, statement: ast.stmt) -> str:
        """Where the import of the module would start a development server, which never returns; or an empty text."""
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            return ""
        if call.func.attr not in {"run", "run_server"} or last_name(call.func.value) not in self.objects:
            return ""
        return f"{self.path}:{statement.lineno}: {ast.unparse(call.func)}() starts the development server on import"

    def names(self, imported: bool) -> list[str]:
        """Expressions that are an app or a factory, the likeliest first; without `imported` only those made here."""
        apps = [name for name, (kind, _) in self.objects.items() if kind == "app"]
        apps += [f"{name}.server" for name, (kind, _) in self.objects.items() if kind == "dash" and not apps]
        factories = [name for name in FACTORIES if name in self.makes]
        ranked = sorted(apps, key=lambda name: OBJECTS.index(name) if name in OBJECTS else len(OBJECTS))
        return [name for name in [*ranked, *factories] if imported or name.partition(".")[0] not in self.imported]


# The folder -----------------------------------------------------------------------------------------------------------


def modules_of(folder: Path) -> list[Path]:
    """The Python files of an import folder that may define the app, the likeliest first."""

    def rank(path: Path) -> tuple[int, str]:
        return (MODULES.index(path.stem) if path.stem in MODULES else len(MODULES), path.name)

    files = sorted((p for p in folder.glob("*.py") if not SKIPPED_MODULES.fullmatch(p.stem)), key=rank)
    packages = sorted(p.parent for p in folder.glob("*/__init__.py") if p.parent.name not in SKIPPED_FOLDERS)
    for package in packages:
        files += [package / "__init__.py"]
        files += [package / f"{name}.py" for name in MODULES if (package / f"{name}.py").is_file()]
    return files


def plain_folders(root: Path) -> list[Path]:
    """Folders that are no package and hold a module with a likely name, such as app/main.py."""
    return sorted(
        folder
        for folder in root.iterdir()
        if folder.is_dir()
        and os.access(folder, os.X_OK)
        and folder.name.isidentifier()
        and folder.name not in SKIPPED_FOLDERS | {"src"}
        and not (folder / "__init__.py").exists()
        and any((folder / f"{name}.py").is_file() for name in MODULES)
    )


def imports_siblings(path: Path, root: Path) -> bool:
    """Whether a module imports its neighbours by their bare names, so that its own folder is the import folder."""
    for statement in ast.walk(parse(path)):
        names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        if isinstance(statement, ast.ImportFrom) and not statement.level:
            names = [statement.module or ""]
        for top in (name.partition(".")[0] for name in names):
            beside = [base for base in (path.parent, root) if (base / f"{top}.py").exists() or (base / top).is_dir()]
            if beside and beside[0] == path.parent:
                return True
    return False


def find_app(folder: str) -> dict[str, str]:
    """Where the Flask app is; raises SourceError if there is none.

    `object` is module:name, `path` the import folder below the source ('', 'src' or another), and `home` the import
    folder of the module that defines the app, beside which Flask has its instance folder.
    """
    root = Path(folder)
    bases = tuple(base for base in (root, root / "src") if base.is_dir())
    looked: list[Path] = []
    refused: list[str] = []

    def first_app(files: Iterable[Path], base: Path, import_bases: tuple[Path, ...]) -> dict[str, str] | None:
        for file in files:
            looked.append(file)
            module = Module(file, import_bases)
            refused.extend(module.refused)
            # A script beside the app imports it too; only a module with a likely name is one to serve.
            if names := module.names(imported=file.stem in {*MODULES, "__init__"}):
                if module.starts_server:
                    refused.append(f'{module.starts_server}. Put it below `if __name__ == "__main__":`.')
                    continue
                dotted = ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
                _, home = (module.objects | module.makes)[names[0].partition(".")[0]]
                within = max((one for one in {base, *bases} if home.is_relative_to(one)), key=lambda p: len(p.parts))
                return {
                    "object": f"{dotted}:{names[0]}",
                    "path": below(base, root),
                    "home": below(within, root),
                }
        return None

    for base in bases:
        if found := first_app(modules_of(base), base, bases):
            return found
    plain: list[dict[str, str]] = []
    for top in bases:
        for inner in plain_folders(top):
            files = [inner / f"{name}.py" for name in MODULES if (inner / f"{name}.py").is_file()]
            base = inner if any(imports_siblings(file, top) for file in files) else top
            plain += filter(None, [first_app(files, base, (base, *bases))])
    if len(plain) == 1:
        return plain[0]
    names = ", ".join(str(path.relative_to(root)) for path in looked[:8]) or "any Python file"
    if plain:
        objects = " or ".join(one["object"] for one in plain)
        raise SourceError(f"several Flask apps in {folder}: {objects}. Set `object` (flask_app_object) to one of them.")
    if refused:
        raise SourceError(" ".join(refused))
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name not in SKIPPED_FOLDERS]
    meant = next(filter(is_source, folders), None)
    fix = f"Did you mean {meant}?" if meant else "Set `object` (flask_app_object) to package.module:name."
    raise SourceError(
        f"no Flask app in {folder}: no `app = Flask(…)` and no `create_app()` without required arguments in {names}. {fix}"
    )


def below(folder: Path, root: Path) -> str:
    return "" if folder == root else str(folder.relative_to(root))


def is_source(folder: Path) -> bool:
    """Whether a folder could be deployed by itself."""
    try:
        return bool(dependency_file(folder) and find_app(str(folder)))
    except (SourceError, OSError):
        return False


def uses_vantage(folder: str) -> bool:
    """Whether any code of the folder imports flask_vantage."""
    pattern = re.compile(rb"^\s*(?:from|import)\s+flask_vantage\b", re.MULTILINE)
    environments = {path.parent for path in Path(folder).glob("*/pyvenv.cfg")}
    return any(
        pattern.search(path.read_bytes())
        for path in Path(folder).rglob("*.py")
        if os.access(path, os.R_OK)
        and path.is_file()
        and not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in path.relative_to(folder).parts)
        and not environments.intersection(path.parents)
    )


# Dependencies ---------------------------------------------------------------------------------------------------------


def dependency_file(folder: Path) -> str:
    return next((name for name in DEPENDENCIES if (folder / name).is_file()), "")


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: invalid TOML: {error}. Correct it.") from None


def pip_arguments_of(folder: Path) -> list[str]:
    """What pip installs, as its arguments; raises SourceError if the folder lists no dependencies."""
    name = dependency_file(folder)
    if not name:
        inner = sorted(path.parent.name for pattern in DEPENDENCIES for path in folder.glob(f"*/{pattern}"))
        hint = f" Did you mean {folder / inner[0]}?" if inner and is_source(folder / inner[0]) else ""
        raise SourceError(
            f"no dependencies in {folder} ({', '.join(DEPENDENCIES)}). List the app's packages in requirements.txt.{hint}"
        )
    project = read_toml(folder / "pyproject.toml") if (folder / "pyproject.toml").is_file() else {}
    # Editable: its metadata and commands are installed, and the code is always that of the source.
    package = ["--editable", "."] if "build-system" in project or name == "setup.py" else []
    if name == "requirements.txt":
        return ["--requirement", name, *package]
    if name == "pyproject.toml":
        listed = project.get("project", {}).get("dependencies", [])
        if not package and not listed:
            raise SourceError(f"no dependencies in {folder / name}. List the app's packages in [project] dependencies.")
        return package or [str(one) for one in listed]
    return package or pipenv_requirements(folder / name)


def pipenv_requirements(path: Path) -> list[str]:
    """The packages of a Pipfile or Pipfile.lock as requirements; raises SourceError for one that pip cannot express."""
    if path.name == "Pipfile":
        packages = read_toml(path).get("packages", {})
    else:
        try:
            packages = json.loads(path.read_text(encoding="utf-8")).get("default", {})
        except ValueError as error:
            raise SourceError(f"{path}: invalid JSON: {error}. Run `pipenv lock`.") from None
    found = []
    for name, given in packages.items():
        entry = given if isinstance(given, dict) else {"version": given}
        version = str(entry.get("version", "*"))
        if not {"version", "extras", "markers", "hashes", "index", "python_version", "sys_platform"}.issuperset(entry):
            raise SourceError(f"{path}: unsupported entry: {name} (a version). List it in a requirements.txt.")
        extras = f"[{','.join(entry['extras'])}]" if entry.get("extras") else ""
        marker = entry.get("markers") or " and ".join(
            f"{key} {entry[key]}" for key in ("python_version", "sys_platform") if key in entry
        )
        found.append(f"{name}{extras}{'' if version == '*' else version}" + (f"; {marker}" if marker else ""))
    return found


# The recipe -----------------------------------------------------------------------------------------------------------


def dockerfile_images(text: str) -> list[str]:
    """The images that a Dockerfile names, without docker.io/: bases, and those it copies or mounts from."""
    bases = re.findall(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    others = re.findall(r"^\s*(?:COPY|RUN)\s[^\n]*?(?:--|,)from=([^\s,]+)", text, re.MULTILINE | re.IGNORECASE)
    return [name.removeprefix("docker.io/") for name in dict.fromkeys([*bases, *others])]


FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE)
SET = re.compile(r"""([\w.-]+)=("[^"]*"|'[^']*'|\S*)|^(\S+)\s+(.*)$""")


def dockerfile_words(text: str, wanted: str) -> list[str]:
    """The words of an instruction such as EXPOSE or VOLUME in the image that a Dockerfile makes.

    Its last stage counts, and the stages that this one begins from. Variables are those of ARG and ENV.
    """
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    begins = list(FROM.finditer(text))
    ends = [match.start() for match in begins[1:]] + [len(text)]
    stages = {
        match[2] or str(number): (match[1], text[match.end() : end])
        for number, (match, end) in enumerate(zip(begins, ends, strict=True))
    }
    chain: list[str] = []
    name = list(stages)[-1] if stages else ""
    while name in stages and name not in chain:
        chain.insert(0, name)
        name = stages[name][0]
    values: dict[str, str] = {}
    found: list[str] = []

    def expand(value: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), value.strip("\"'"))

    for line in "\n".join(
        [text[: begins[0].start()] if begins else "", *(stages[one][1] for one in chain)]
    ).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction.upper() in {"ARG", "ENV"}:
            for key, value, other, last in SET.findall(rest.strip()):
                values |= {key: expand(value)} if key else {other: expand(last)}
        elif instruction.upper() == wanted:
            found += [expand(word) for word in re.split(r"[\s,\[\]]+", rest) if word]
    return found


def app_recipe(app: Mapping[str, Any]) -> dict[str, Any]:
    """How the image of an app with a source folder is built; raises SourceError if it cannot be built.

    `dockerfile` is whether the folder has its own; then `from` lists the images that it names, and `data` is its only VOLUME:
    what the app writes there would be lost with the container. Otherwise: `object`,
    `python_path` (the import folders in the image, the app's first), `dependencies` (the file that lists them),
    `packages` (arguments of pip), `instrument`, `traced` (whether it needs OpenTelemetry) and `data`, Flask's instance
    folder.
    """
    folder = Path(app["source"]).expanduser()
    if not folder.is_dir():
        raise SourceError(f"source {folder} is not a directory. Set it to the app's directory on the controller.")
    if (folder / "Dockerfile").is_file():
        text = (folder / "Dockerfile").read_text(encoding="utf-8", errors="replace")
        volumes = dockerfile_words(text, "VOLUME")
        return {"dockerfile": True, "from": dockerfile_images(text), "data": volumes[0] if len(volumes) == 1 else ""}
    if app.get("object"):
        top = str(app["object"]).partition(":")[0].partition(".")[0]
        is_here = (folder / top).exists() or (folder / f"{top}.py").exists()
        path = "" if is_here or not (folder / "src").is_dir() else "src"
        found = {"object": str(app["object"]), "path": path, "home": path}
    else:
        found = find_app(str(folder))
    packages = pip_arguments_of(folder)
    instrument = str(app.get("instrument") or "none")
    paths = [found["path"], "", *(["src"] if (folder / "src").is_dir() else [])]
    return {
        "dockerfile": False,
        "object": found["object"],
        "python_path": [in_image(path) for path in dict.fromkeys(paths)],
        "dependencies": dependency_file(folder),
        "packages": packages,
        "instrument": instrument,
        "traced": instrument == "auto" or uses_vantage(str(folder)),
        "data": f"{in_image(found['home'])}/instance",
    }


def in_image(path: str) -> str:
    return f"{SOURCE}/{path}" if path else SOURCE


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"app_recipe": app_recipe, "dockerfile_words": dockerfile_words, "uses_vantage": uses_vantage}
