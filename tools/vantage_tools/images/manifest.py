"""Reads the manifest tools/images/images.yml."""

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
    packages: list[str]
    # Of the archive; mmdebstrap's default is main.
    components: list[str] = field(default_factory=list)
    # The archive's public key where a Debian machine has none.
    key: Path | None = None


@dataclass(frozen=True)
class Image:
    """One image of the manifest; `make` is the raw mapping of how it is built; without it the image may be missing."""

    name: str
    # The role variable that takes its reference.
    variable: str = ""
    pull: str = ""
    make: Mapping[str, Any] = field(default_factory=dict)
    # Used on this machine only, never sent to a host: the system container.
    local: bool = False
    # The reference of a made image that is not in `make`: of the app, whose version is its project's.
    ref: str = ""

    @property
    def made_ref(self) -> str:
        """The reference of the image when it is made."""
        return str(self.make.get("ref", self.ref))

    @property
    def archive_variable(self) -> str:
        """The environment variable that names an archive of an image that cannot be made."""
        return "" if self.make else f"VANTAGE_{self.name.upper()}_ARCHIVE"


@dataclass(frozen=True)
class Manifest:
    """All images in their order, the bases they share, and how programs for this machine are built."""

    images: list[Image]
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
    key = folder / raw["key"] if "key" in raw else None
    return Base(name, raw["suite"], packages, raw.get("components", []), key)


def _image(raw: dict[str, Any], version: str) -> Image:
    where = f"image {raw.get('name', '?')}"
    _check_keys(where, raw, (item.name for item in fields(Image)))
    _check_keys(f"{where}, make", raw.get("make", {}), _MAKE_KEYS)
    image = Image(**{"variable": f"{raw['name']}_image"} | raw)
    if image.ref:
        image = replace(image, ref=f"{image.ref}:{version}")
    for text in filter(None, (image.pull, image.made_ref)):
        Reference.parse(text)
    return image


def load(root: Path) -> Manifest:
    folder = root / FOLDER
    raw = yaml.safe_load((folder / "images.yml").read_text())
    project = tomllib.loads((root / "app/pyproject.toml").read_text())["project"]
    images = [_image(entry, project["version"]) for entry in raw["images"]]
    bases = {name: _base(folder, name, base) for name, base in raw["bases"].items()}
    return Manifest(images, bases, raw.get("tools", {}), root)
