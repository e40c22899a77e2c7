"""Environment variables of an app that are secrets: a .env file, and the key `secret_environment`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# One assignment, as shells and python-dotenv read it. In single quotes nothing has a meaning.
ASSIGNMENT = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_]\w*)[ \t]*=[ \t]*
        (?: '(?P<literal>[^']*)' | "(?P<quoted>(?:[^"\\]|\\.)*)" | (?P<plain>[^\n'"][^\n]*?)?(?=[ \t]+\#|[ \t]*(?:\r?\n|\Z)) )
        [ \t]*(?:\#[^\n]*)?(?:\r?\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
IGNORED_LINE = re.compile(r"[ \t]*(?:\#[^\n]*)?(?:\r?\n|\Z)")
REFERENCE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
# What Vantage decides: in a .env they are settings of the developer's machine.
OWN_NAMES = {"PORT", "FLASK_APP", "FLASK_ENV", "FLASK_DEBUG", "FLASK_RUN_HOST", "FLASK_RUN_PORT"}


class EnvFileError(ValueError):
    """The file cannot be used; the text gives file, line and fix."""


def assignments(text: str, path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, name and value of each assignment; raises EnvFileError for any other line."""
    position = 0
    known: dict[str, str] = {}
    while position < len(text):
        line = text.count("\n", 0, position) + 1
        if ignored := IGNORED_LINE.match(text, position):
            position = ignored.end()
            continue
        found = ASSIGNMENT.match(text, position)
        if not found:
            raise EnvFileError(
                f"{path}:{line}: invalid line (allowed: NAME=value, and # before a comment). Correct it."
            )
        name, value = found["name"], found["literal"]
        if value is None:
            value = found["quoted"] if found["quoted"] is not None else found["plain"] or ""
            if found["quoted"] is not None:
                value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[1]), value, flags=re.DOTALL)
            for reference in REFERENCE.finditer(value):
                if reference[1] not in known and reference[2] is None:
                    raise EnvFileError(
                        f"{path}:{line}: unknown variable: {reference[1]}. Set it in a line above, or put the value in "
                        "single quotes if it is meant literally."
                    )
            value = REFERENCE.sub(lambda m: known.get(m[1]) or m[2] or "", value)
        known[name] = value
        yield line, name, value
        position = found.end()


def env_file_path(app: Mapping[str, Any]) -> Path | None:
    """The app's env_file; a relative path is looked for in the source, then in the working directory."""
    if not app.get("env_file"):
        return None
    given = Path(str(app["env_file"])).expanduser()
    inside = Path(str(app["source"])).expanduser() / given if app.get("source") else given
    return inside if inside.is_file() else given


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a .env file; raises EnvFileError if it cannot be read or a value has a line break."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise EnvFileError(f"env_file {path} is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise EnvFileError(
            f"cannot read env_file {path}: {error.strerror}. Set it to a file on the controller."
        ) from None
    found = {}
    for line, name, value in assignments(text, path):
        if any(character in value for character in "\n\r\0"):
            raise EnvFileError(
                f"{path}:{line}: {name} has a line break, which an environment variable of a container cannot have. "
                "Make it a secret: the app reads a file."
            )
        found[name] = value
    return found


def secret_environment(app: Mapping[str, Any]) -> dict[str, str]:
    """The app's secret variables: those of its env_file, and over them its key `secret_environment`."""
    path = env_file_path(app)
    given = {str(name): str(value) for name, value in (app.get("secret_environment") or {}).items()}
    return (read_env_file(path) if path else {}) | given


def env_hint(app: Mapping[str, Any]) -> str:
    """What an app misses whose source has a .env that no key names; empty if nothing."""
    path = Path(str(app.get("source") or "")).expanduser() / ".env"
    if not app.get("source") or app.get("env_file") or not path.is_file():
        return ""
    try:
        names = {name for _, name, _ in assignments(path.read_text(encoding="utf-8", errors="replace"), path)}
    except (EnvFileError, OSError):
        names = set()
    given = {
        str(name).upper() for key in ("environment", "secret_environment", "secrets") for name in app.get(key) or {}
    }
    missing = sorted(name for name in names - OWN_NAMES if name.upper() not in given)
    if not missing:
        return ""
    return (
        f"{path} is not deployed, so the app does not get {', '.join(missing)}. Set env_file (flask_app_env_file) to "
        ".env, or set them in secret_environment (flask_app_secret_environment)."
    )


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"env_hint": env_hint, "secret_environment": secret_environment}
