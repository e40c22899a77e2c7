"""The files of a source folder, and digests of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.utils.display import Display

# Never in an image: history, caches of tools, and Flask's instance folder, which holds secrets of the machine.
# `build` and `dist` are: a Dockerfile may copy what another tool wrote there.
IGNORED = {
    ".git", ".venv", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "node_modules",
}  # fmt: skip
INSTANCE = "instance"
# Examples of a .env, which hold no passwords.
ENV_EXAMPLES = {".env.example", ".env.sample", ".env.template", ".env.dist"}
# Read by the build itself, also if an ignore file names them.
ALWAYS = {
    "Dockerfile", ".dockerignore", "Dockerfile.dockerignore", "requirements.txt", "pyproject.toml", "setup.py",
    "setup.cfg", "Pipfile", "Pipfile.lock",
}  # fmt: skip

# What a source without a Dockerfile is built with.
ROLE = Path(__file__).resolve().parents[1]
RECIPE_FILES = (
    ROLE / "templates/Dockerfile.j2",
    ROLE / "templates/packages.Dockerfile.j2",
    ROLE / "files/install",
    ROLE / "files/check_packages.py",
)

LARGE_BYTES = 200 * 1024**2


class SourceError(ValueError):
    """The source folder cannot be read; the text names folder, reason and fix."""


# Ignore files ---------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A line of an ignore file."""

    pattern: re.Pattern[str]
    only_folders: bool
    ignores: bool


def glob_pattern(glob: str) -> str:
    """A glob as a regular expression; `*` and `?` match no slash, `**` does.

    Convention of gitignore(5) and, but for where a pattern begins, of .dockerignore.
    """
    found, position = "", 0
    for match in re.finditer(r"\*\*/|/\*\*$|\*\*|\*|\?|\[!?[^\]]+\]|\\.", glob):
        found += re.escape(glob[position : match.start()])
        token, position = match[0], match.end()
        if token == "**/":
            found += "(?:.*/)?"
        elif token in {"/**", "**"}:
            found += "/.*" if token == "/**" else ".*"
        elif token in {"*", "?"}:
            found += "[^/]*" if token == "*" else "[^/]"
        elif token.startswith("["):
            found += token.replace("[!", "[^", 1).replace("\\", "\\\\")
        else:
            found += re.escape(token[1])
    return found + re.escape(glob[position:])


def git_rules(text: str) -> Iterator[Rule]:
    """The rules of a .gitignore; its patterns are matched from its own folder."""
    for line in text.splitlines():
        line = re.sub(r"(?<!\\)\s+$", "", line)
        if not line or line.startswith("#"):
            continue
        glob = line.removeprefix("!")
        anchored = "/" in glob.rstrip("/")
        pattern = ("" if anchored else "(?:.*/)?") + glob_pattern(glob.strip("/") if anchored else glob.rstrip("/"))
        yield Rule(re.compile(pattern, re.DOTALL), glob.endswith("/"), not line.startswith("!"))


def docker_rules(text: str) -> Iterator[Rule]:
    """The rules of a .dockerignore; its patterns begin at the source, and match what is below too."""
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        glob = os.path.normpath(line.removeprefix("!").strip()).lstrip("/")
        if glob and glob != ".":
            yield Rule(re.compile(glob_pattern(glob) + "(?:/.*)?", re.DOTALL), False, not line.startswith("!"))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


class Ignored:
    """What the ignore files of a source leave out: its .dockerignore; without one and without Dockerfile, .gitignore."""

    def __init__(self, root: Path) -> None:
        names = {path.name for path in root.iterdir()}
        docker = next((name for name in ("Dockerfile.dockerignore", ".dockerignore") if name in names), "")
        if docker.startswith("Dockerfile") and "Dockerfile" not in names:
            docker = ".dockerignore" if ".dockerignore" in names else ""
        self.docker = list(docker_rules(read_text(root / docker))) if docker else []
        self.uses_git = not docker and "Dockerfile" not in names
        self.git: dict[str, list[Rule]] = {}
        self.file = docker or (".gitignore" if self.uses_git and ".gitignore" in names else ".dockerignore")

    def enter(self, root: Path, folder: str) -> None:
        """Read the .gitignore of a folder."""
        text = read_text(root / folder / ".gitignore") if self.uses_git else ""
        if text:
            self.git[folder] = list(git_rules(text))

    def covers(self, name: str, is_folder: bool) -> bool:
        """Whether a path is left out. The last rule that matches decides."""
        if self.docker:
            # A rule further down may include what is below an ignored folder.
            ignored = [rule.ignores for rule in self.docker if rule.pattern.fullmatch(name)][-1:] == [True]
            return ignored and not (is_folder and any(not rule.ignores for rule in self.docker))
        found = False
        for folder, rules in self.git.items():
            if not folder or name.startswith(f"{folder}/"):
                inner = name[len(folder) + 1 :] if folder else name
                for rule in rules:
                    if (is_folder or not rule.only_folders) and rule.pattern.fullmatch(inner):
                        found = rule.ignores
        return found


def is_never_packed(name: str) -> bool:
    """Whether the last part of a path is left out of every image; `.env` and `.env.local` hold passwords."""
    part = name.rpartition("/")[2]
    is_env = part == ".env" or (part.startswith(".env.") and part not in ENV_EXAMPLES)
    return part in IGNORED or is_env or part.endswith(".egg-info") or name == INSTANCE


# Files ----------------------------------------------------------------------------------------------------------------


def source_files(folder: str) -> list[str]:
    """The files of the build context, sorted, relative to the folder; links to files and folders are followed.

    A name that is not UTF-8 contains surrogates. Raises SourceError if the source is not a directory, or for files that
    cannot be read.
    """
    if not Path(folder).is_dir():
        raise SourceError(f"source {folder} is not a directory. Set it to the app's directory on the controller.")
    root = Path(folder)
    ignored = Ignored(root)
    found: list[str] = []
    unreadable: list[str] = []

    def walk(inner: str, above: frozenset[tuple[int, int]]) -> None:
        path = root / inner
        try:
            status, entries = path.stat(), sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            unreadable.append(f"{inner}/")
            return
        # A link to a folder above this one.
        if (status.st_dev, status.st_ino) in above:
            return
        # A virtual environment of any name.
        if inner and any(entry.name == "pyvenv.cfg" for entry in entries):
            return
        ignored.enter(root, inner)
        for entry in entries:
            name = f"{inner}/{entry.name}" if inner else entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                continue  # A link to itself.
            if is_never_packed(name) or (name not in ALWAYS and ignored.covers(name, is_folder)):
                continue
            if is_folder:
                walk(name, above | {(status.st_dev, status.st_ino)})
            elif is_file:
                (found if os.access(entry.path, os.R_OK) else unreadable).append(name)

    walk("", frozenset())
    if unreadable:
        names = ", ".join(map(shown, unreadable[:8])) + (f" and {len(unreadable) - 8} more" if unreadable[8:] else "")
        raise SourceError(
            f"cannot read files of source {folder}: {names} (permission denied). Make them readable, or list them in "
            f"{ignored.file} if the app does not need them."
        )
    return sorted(found)


def shown(name: str) -> str:
    """A file name as a message can show it."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def source_digest(folder: str) -> str:
    """SHA-256 in hex over names, contents and executable bits of `source_files`; warns about a large source."""
    total, sizes = hashlib.sha256(), {}
    for name in source_files(folder):
        with Path(folder, name).open("rb") as file:
            status = os.fstat(file.fileno())
            head = f"\0{status.st_size}\0{bool(status.st_mode & 0o100)}\0"
            total.update(os.fsencode(name) + head.encode())
            # In pieces: a file may be larger than the memory.
            total.update(hashlib.file_digest(file, "sha256").digest())
        sizes[name] = status.st_size
    if sum(sizes.values()) > LARGE_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        Display().warning(
            f"source {folder} is large: {megabytes(sum(sizes.values()))} in {len(sizes)} files, of which {shown(largest)} "
            f"{megabytes(sizes[largest])}. Each run reads it, and each build copies it to the host. "
            f"List what the app does not need in {Ignored(Path(folder)).file}, or mount it as a volume."
        )
    return total.hexdigest()


def megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def source_digests(folders: Iterable[str]) -> dict[str, str]:
    """The digest of each source folder, each read once."""
    return {str(folder): source_digest(str(folder)) for folder in dict.fromkeys(folders)}


def build_digest(content: str, *recipe: Any) -> str:
    """SHA-256 in hex over a source's digest and what it is built with."""
    return hashlib.sha256(json.dumps([content, *recipe], sort_keys=True, default=str).encode()).hexdigest()


# pip reads these; `-r` and `-c` name another file, the others a path of the source.
INCLUDED = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)", re.MULTILINE)
LOCAL = re.compile(
    r"^\s*(?:-e|--editable|-f|--find-links|\.|/|file:|[^#\s]+\s*@\s*file:)|^[^#\s]+\.(?:whl|zip|tar\.gz)", re.MULTILINE
)


def packages_digest(folder: str, recipe: dict[str, Any], content: str, base: str) -> str:
    """SHA-256 in hex over what the installed packages depend on: they are installed again only if it changes.

    That is the recipe, the base image and the files that list packages; also the whole `content` of the source if one
    of them names a path in it.
    """
    total, names, read = hashlib.sha256(), [recipe["dependencies"], *ALWAYS], set()
    keys = [recipe["packages"], recipe["traced"], base]
    total.update(json.dumps(keys, default=str).encode())
    for path in RECIPE_FILES:
        total.update(path.read_bytes())
    while names:
        name = os.path.normpath(names.pop())
        path = Path(folder, name)
        if name in read or not path.is_file() or name in {"Dockerfile", ".dockerignore"}:
            continue
        read.add(name)
        text = path.read_bytes()
        total.update(name.encode() + b"\0" + text)
        if path.suffix in {".txt", ".in"}:
            lines = text.decode("utf-8", "replace")
            names += [str(Path(name).parent / found) for found in INCLUDED.findall(lines)]
            total.update(content.encode() if LOCAL.search(lines) else b"")
    return total.hexdigest()


def built_tag(image: str, digest: str) -> str:
    """The image's tag for a source with this digest: `shop:1` becomes `shop:1-0123456789ab`."""
    separator = "-" if ":" in image.rpartition("/")[2] else ":"
    return f"{image}{separator}{digest[:12]}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {
            "build_digest": build_digest,
            "built_tag": built_tag,
            "packages_digest": packages_digest,
            "source_digest": source_digest,
            "source_digests": source_digests,
            "source_files": source_files,
        }
