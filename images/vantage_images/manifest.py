"""The manifest images/images.yml, read and checked."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .errors import ImageError

KINDS = ("go", "debian", "app")
_IMAGE_KEYS = {
    "name", "variable", "pull", "ref", "make", "optional", "local", "enabled_variable",
    "archive_variable",
}  # fmt: skip
_MAKE_KEYS = {
    "ref", "kind", "module", "version", "tags", "cgo", "base", "ldflags_x", "binaries",
    "module_files", "users", "directories", "config",
}  # fmt: skip
# host/path:tag; without a host Docker would add one by itself, and "the same image" would have two names.
_REF = re.compile(r"^(?P<host>[a-z0-9.:-]+)/(?P<path>[a-z0-9._/-]+):(?P<tag>[\w][\w.-]{0,127})$")


@dataclass(frozen=True)
class Reference:
    """An image reference, split: registry host, repository path, tag."""

    host: str
    path: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the parts of `text`; raises ImageError when it is not `host/path:tag`."""
        match = _REF.match(text)
        if match is None:
            raise ImageError(
                f"image reference {text!r}",
                "is not of the form host/path:tag",
                "write it in full in images/images.yml, e.g. docker.io/prom/prometheus:v3.13.5",
            )
        return cls(match["host"], match["path"], match["tag"])


@dataclass(frozen=True)
class Base:
    """A root file system from Debian's or Ubuntu's packages."""

    name: str
    suite: str
    packages: tuple[str, ...]
    # Of the archive; empty takes mmdebstrap's default, which is main.
    components: tuple[str, ...] = ()
    # The archive's public key, where a Debian host has none of its own.
    key: Path | None = None


@dataclass(frozen=True)
class Image:
    """One image of the manifest; `make` is the raw mapping of how it is built, or empty."""

    name: str
    variable: str | None
    pull: str | None
    ref: str | None
    make: dict[str, Any] = field(default_factory=dict)
    optional: bool = False
    # Used on this machine only, never sent to a host: the system container.
    local: bool = False
    enabled_variable: str | None = None
    archive_variable: str | None = None

    @property
    def made_ref(self) -> str | None:
        """The tag of the image when it is made, or None when it cannot be."""
        return self.make.get("ref", self.ref) if self.make else None


@dataclass(frozen=True)
class Manifest:
    """All images, in the order in which they are got, and the bases they share."""

    images: tuple[Image, ...]
    bases: dict[str, Base]
    # The checkout it was read from.
    root: Path
    # Programs for this machine, as the raw mapping of how each is built.
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)

    def select(self, names: list[str]) -> list[Image]:
        """Return the images called `names`, all that are sent to hosts when it is empty."""
        if not names:
            return [image for image in self.images if not image.local]
        known = {image.name: image for image in self.images}
        for name in names:
            if name not in known:
                raise ImageError(f"image {name!r}", "is not in images/images.yml", f"use one of: {', '.join(known)}")
        return [known[name] for name in names]


def _check_keys(where: str, given: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise ImageError(
            f"images.yml, {where}",
            f"unknown setting {', '.join(unknown)}",
            f"use only: {', '.join(sorted(known))}",
        )


def _base(root: Path, name: str, raw: dict[str, Any]) -> Base:
    _check_keys(f"base {name}", raw, {"suite", "packages", "components", "key"})
    key = root / "images" / raw["key"] if raw.get("key") else None
    # A list in the list is an alias: YAML cannot join two.
    packages = [one for entry in raw["packages"] for one in (entry if isinstance(entry, list) else [entry])]
    return Base(name, raw["suite"], tuple(packages), tuple(raw.get("components", [])), key)


def _image(raw: dict[str, Any], bases: dict[str, Base], app_version: str) -> Image:
    where = f"image {raw.get('name', '?')}"
    _check_keys(where, raw, _IMAGE_KEYS)
    make = dict(raw.get("make") or {})
    _check_keys(f"{where}, make", make, _MAKE_KEYS)
    ref = raw.get("ref")
    if make.get("kind") == "app":
        ref = f"{ref}:{app_version}"
    image = Image(
        name=raw["name"], variable=raw.get("variable"), pull=raw.get("pull"), ref=ref, make=make,
        optional=raw.get("optional", False), local=raw.get("local", False),
        enabled_variable=raw.get("enabled_variable"), archive_variable=raw.get("archive_variable"),
    )  # fmt: skip
    if make and make.get("kind") not in KINDS:
        raise ImageError(f"images.yml, {where}", f"make.kind {make.get('kind')!r} is unknown",
                         f"use one of: {', '.join(KINDS)}")  # fmt: skip
    if make.get("base") and make["base"] not in bases:
        raise ImageError(f"images.yml, {where}", f"base {make['base']!r} is not defined",
                         "add it under bases:")  # fmt: skip
    for text in (image.pull, image.made_ref):
        if text:
            Reference.parse(text)
    if not image.pull and not image.made_ref:
        raise ImageError(f"images.yml, {where}", "has neither pull nor make", "give it one of them")
    if not image.local and not image.variable:
        raise ImageError(f"images.yml, {where}", "has no variable",
                         "name the Ansible variable that takes its reference")  # fmt: skip
    return image


def app_version(root: Path) -> str:
    """Return the version in app/pyproject.toml, "0" while there is no app."""
    project = root / "app" / "pyproject.toml"
    if not project.is_file():
        return "0"
    return str(tomllib.loads(project.read_text())["project"]["version"])


def load(root: Path) -> Manifest:
    """Read images/images.yml of the checkout `root`; raises ImageError when something in it is wrong."""
    raw = yaml.safe_load((root / "images" / "images.yml").read_text())
    bases = {name: _base(root, name, base) for name, base in raw["bases"].items()}
    version = app_version(root)
    images = tuple(_image(entry, bases, version) for entry in raw["images"])
    names = [image.name for image in images]
    if len(set(names)) != len(names):
        raise ImageError("images.yml", "two images have the same name", "rename one of them")
    tools = {}
    for entry in raw.get("tools") or []:
        make = {key: value for key, value in entry.items() if key != "name"}
        _check_keys(f"tool {entry.get('name', '?')}", make, _MAKE_KEYS)
        tools[str(entry["name"])] = make
    return Manifest(images, bases, root, tools)
