"""Gets images: decides for each where it comes from, and keeps the store's records right."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vantage_tools.errors import UserError

from . import cache_keys, docker, registry
from .archive import Ids, sha256_of
from .gobuild import architecture
from .maker import Maker
from .manifest import Image, Manifest, Reference
from .progress import Progress
from .store import Record, Store


@dataclass
class Getter:
    """Gets images into `store`: pulled where a registry answers, else made."""

    manifest: Manifest
    store: Store
    progress: Progress

    def current(self, image: Image) -> Record | None:
        """Return the record of `image` when it is what the manifest and the environment ask for now, else None."""
        record = self.store.record(image.name)
        return record if record and record.key in self._valid_keys(image, record) else None

    def _valid_keys(self, image: Image, record: Record) -> set[str]:
        if given := os.environ.get(image.archive_variable):
            # A given archive takes precedence, and a record of another one is outdated.
            return {_archive_key(image, given)}
        valid = {cache_keys.pulled_key(image)}
        if image.make:
            return valid | {self._made_key(image)}
        return valid | {_engine_key(image)} | ({record.key} if record.origin == "archive" else set())

    def _made_key(self, image: Image) -> str:
        return cache_keys.made_key(image, self.manifest, architecture())

    def get(self, image: Image) -> Record | None:
        """Return the record of `image`, getting it first; None when it cannot be made and is not available."""
        if record := self.current(image):
            return record
        self.progress.begin(image.name)
        if given := os.environ.get(image.archive_variable):
            return self._from_archive(image, given)
        reason = self._pull(image)
        if not reason:
            return self._saved(image, image.pull, "pulled", cache_keys.pulled_key(image))
        if image.make:
            ids = Maker(self.manifest, self.store, self.progress).make(image)
            return self._add(image, image.made_ref, ids, "made", self._made_key(image))
        if docker.image_id(image.pull):
            return self._saved(image, image.pull, "engine", _engine_key(image))
        self.store.drop(image.name)
        self.progress.note(
            f"{image.name}: not available ({reason}). The rest runs without it. "
            f"Set {image.archive_variable} to an archive of it."
        )
        return None

    def _pull(self, image: Image) -> str:
        """Pull the image into the engine; return why that is impossible, or nothing."""
        if not image.pull:
            return "it is in no registry"
        host = Reference.parse(image.pull).host
        if not registry.is_reachable(host):
            return f"{host} does not answer"
        docker.require(f"pulling {image.pull}")
        with self.progress.step(f"pulling {image.pull}"):
            reason = docker.pull(image.pull)
        if reason:
            self.progress.note(f"{image.name}: cannot pull {image.pull}: {reason}")
        return reason

    def _saved(self, image: Image, ref: str, origin: str, key: str) -> Record:
        with self.progress.step("writing the archive"):
            ids = docker.save(ref, self.store.archive(image.name))
        return self._add(image, ref, ids, origin, key)

    def _from_archive(self, image: Image, given: str) -> Record:
        """Take the archive that the user gave; it must hold the image that the manifest names."""
        key, path = _archive_key(image, given), Reference.parse(image.pull).path
        fix = f"Make it with: {_save_command(image)}"
        docker.require(f"{image.archive_variable}={given}")
        with self.progress.step(f"loading {given}"):
            tags = [f"docker.io/{tag.removeprefix('docker.io/')}" for tag in docker.load(Path(given), fix)]
        ref = next((tag for tag in tags if tag.startswith(f"docker.io/{path}:")), None)
        if ref is None:
            raise UserError(f"{image.archive_variable}={given}: holds {', '.join(tags) or 'no tag'}, not {path}", fix)
        if ref != image.pull:
            self.progress.note(f"{image.name}: the archive holds {ref}, not {image.pull}; using it")
        return self._saved(image, ref, "archive", key)

    def _add(self, image: Image, ref: str, ids: Ids, origin: str, key: str) -> Record:
        archive = self.store.archive(image.name)
        record = Record(image.name, ref, archive.name, ids.id, ids.digest, origin, key)
        self.store.add(record)
        self.progress.done(f"{origin} {ref}, {archive.stat().st_size / 1e6:.0f} MB")
        return record


def _engine_key(image: Image) -> str:
    return cache_keys.hash_of(["engine", image.pull])


def _archive_key(image: Image, given: str) -> str:
    if not Path(given).is_file():
        raise UserError(f"{image.archive_variable}={given}: no such file", f"Make it with: {_save_command(image)}")
    return cache_keys.hash_of(["archive", sha256_of(Path(given))])


def _save_command(image: Image) -> str:
    return f"docker save {image.pull} | gzip > {image.name}.tar.gz"
