"""Reads and checks the manifest tools/images/images.yml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vantage_tools.errors import UserError

FOLDER = "tools/images"
KINDS = ("go", "debian", "app")
_MAKE_KEYS = (
    "ref", "kind", "module", "version", "tags", "cgo", "base", "ldflags_x", "binaries", "module_files", "users",
    "directories", "config",
)  # fmt: skip
# Docker adds a host where there is none, and the same image would have two names.
_REFERENCE = re.compile(r"(?P<host>[a-z0-9.:-]+)/(?P<path>[a-z0-9._/-]+):(?P<tag>\w[\w.-]{0,127})")


@dataclass(frozen=True)
class Reference:
    """An image reference: registry host, repository path, tag."""

    host: str
    path: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the parts of `text`; raises UserError when it is not `host/path:tag`."""
        if match := _REFERENCE.fullmatch(text):
            return cls(**match.groupdict())
        raise UserError(
            f"invalid image reference: {text!r} (host/path:tag)", f"Write it in full in {FOLDER}/images.yml."
        )


@dataclass(frozen=True)
class Base:
    """A root file system from Debian's or Ubuntu's packages."""

    name: str
    suite: str
    packages: tuple[str, ...]
    # Of the archive; mmdebstrap's default is main.
    components: tuple[str, ...] = ()
    # The archive's public key where a Debian machine has none.
    key: Path | None = None


@dataclass(frozen=True)
class Image:
    """One image of the manifest; `make` is the raw mapping of how it is built, or empty."""

    name: str
    variable: str | None = None
    pull: str | None = None
    ref: str | None = None
    make: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False
    # Used on this machine only, never sent to a host: the system container.
    local: bool = False
    enabled_variable: str | None = None
    archive_variable: str | None = None

    @property
    def made_ref(self) -> str | None:
        """The reference of the image when it is made, or None when it cannot be made."""
        return self.make.get("ref", self.ref) if self.make else None


@dataclass(frozen=True)
class Manifest:
    """All images in their order, the bases they share, and how programs for this machine are built."""

    images: tuple[Image, ...]
    bases: Mapping[str, Base]
    tools: Mapping[str, Mapping[str, Any]]
    # The checkout it was read from.
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def select(self, names: Iterable[str]) -> list[Image]:
        """Return the images called `names`, all that are sent to hosts when it is empty."""
        known = {image.name: image for image in self.images}
        for name in names:
            if name not in known:
                raise UserError(f"unknown image: {name!r} ({', '.join(known)})")
        return [known[name] for name in names] or [image for image in self.images if not image.local]


def _check_keys(where: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"images.yml, {where}: unknown setting {', '.join(unknown)} ({', '.join(sorted(known))})")


def _base(folder: Path, name: str, raw: dict[str, Any]) -> Base:
    _check_keys(f"base {name}", raw, {item.name for item in fields(Base)} - {"name"})
    # YAML cannot join two lists, so a list in the list is an alias.
    packages = [one for entry in raw["packages"] for one in (entry if isinstance(entry, list) else [entry])]
    key = folder / raw["key"] if raw.get("key") else None
    return Base(name, raw["suite"], tuple(packages), tuple(raw.get("components", ())), key)


def _image(raw: dict[str, Any], bases: Mapping[str, Base], version: str) -> Image:
    where = f"image {raw.get('name', '?')}"
    _check_keys(where, raw, (item.name for item in fields(Image)))
    image = Image(**raw)
    make, kind, base = image.make, image.make.get("kind"), image.make.get("base")
    _check_keys(f"{where}, make", make, _MAKE_KEYS)
    if kind == "app":
        image = replace(image, ref=f"{image.ref}:{version}")
    for text in filter(None, (image.pull, image.made_ref)):
        Reference.parse(text)
    problems = {
        f"unknown make.kind {kind!r} ({', '.join(KINDS)})": make and kind not in KINDS,
        f"unknown base {base!r} ({', '.join(bases)})": base and base not in bases,
        "neither pull nor make is set": not image.pull and not image.made_ref,
        "no variable, which takes its reference": not image.local and not image.variable,
    }
    for problem in (text for text, is_so in problems.items() if is_so):
        raise UserError(f"images.yml, {where}: {problem}")
    return image


def load(root: Path) -> Manifest:
    raw = yaml.safe_load((root / FOLDER / "images.yml").read_text())
    project = root / "app/pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"] if project.is_file() else "0"
    bases = {name: _base(root / FOLDER, name, base) for name, base in raw["bases"].items()}
    images = tuple(_image(entry, bases, version) for entry in raw["images"])
    if len({image.name for image in images}) != len(images):
        raise UserError("images.yml: two images have the same name")
    tools = {entry["name"]: entry for entry in raw.get("tools") or []}
    for name, make in tools.items():
        _check_keys(f"tool {name}", make, ("name", *_MAKE_KEYS))
    return Manifest(images, bases, tools, root)
