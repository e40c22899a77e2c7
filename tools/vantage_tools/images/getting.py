"""Gets images: decides for each where it comes from, and keeps the store's records right."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vantage_tools.errors import UserError

from . import engine, keys, registry
from .archive import Ids, add_index, compress, ids_in_archive, naming_damage, sha256_of
from .gobuild import architecture
from .make import Maker
from .manifest import Image, Manifest, Reference
from .progress import Progress
from .store import Record, Store


@dataclass(frozen=True)
class Missing:
    """An optional image that is not available, and why."""

    name: str
    why: str


@dataclass
class Getter:
    """Gets images into `store`; `source` is auto (pull where a registry answers, else make), pull or make."""

    manifest: Manifest
    store: Store
    progress: Progress
    source: str = "auto"

    def __post_init__(self) -> None:
        # Asked once a run.
        self._is_reachable = cache(registry.is_reachable)
        self._maker = Maker(self.manifest, self.store, self.progress)

    def current(self, image: Image) -> Record | None:
        """Return the record of `image` when it is what the manifest asks for now, else None."""
        record = self.store.record(image.name)
        return record if record and record.key in self._valid_keys(image, record) else None

    def _valid_keys(self, image: Image, record: Record) -> set[str]:
        """Return every key with which a record of `image` is current, given --source and the environment."""
        if given := os.environ.get(image.archive_variable or ""):
            # A given archive takes precedence, and a record of another one is outdated.
            return {_archive_key(Path(given))} if Path(given).is_file() else set()
        valid = set()
        if image.pull and self.source != "make":
            valid.add(keys.pulled_key(image))
        if self._may_make(image):
            valid |= {self._made_key(image), self._official_base_key(image)}
        if image.optional:
            valid |= {_engine_key(image)} | ({record.key} if record.origin == "archive" else set())
        return valid

    def _may_make(self, image: Image) -> bool:
        return bool(image.make) and (self.source != "pull" or not image.pull)

    def _made_key(self, image: Image) -> str:
        return keys.made_key(image, self.manifest, architecture())

    def _official_base_key(self, image: Image) -> str:
        return keys.hash_of(["official base", self._made_key(image)])

    def get(self, image: Image) -> Record | Missing:
        """Return the record of `image`, getting it first; raises UserError when a required one is not available."""
        if record := self.current(image):
            return record
        self.progress.begin(image.name)
        if given := os.environ.get(image.archive_variable or ""):
            return self._from_archive(image, Path(given))
        reason = self._pull(image)
        if not reason:
            return self._saved(image, "pulled", keys.pulled_key(image))
        if self._may_make(image):
            return self._made(image)
        if not image.optional:
            raise UserError(f"image {image.name}: {reason}", "Check the network, or have it made: --source auto.")
        if engine.image_id(str(image.pull)) is not None:
            return self._saved(image, "engine", _engine_key(image))
        self.store.drop(image.name)
        return Missing(image.name, reason)

    def _made(self, image: Image) -> Record:
        ids, key = None, self._official_base_key(image)
        if image.make["kind"] == "app" and self.source != "make" and self._is_reachable("docker.io"):
            try:
                ids = self._maker.build_app_on_official_base(image)
            except UserError as error:
                if self.source == "pull":
                    raise
                self.progress.note(f"{error}\nUsing a base made of Debian's packages.")
        if ids is None:
            ids, key = self._maker.make(image), self._made_key(image)
        return self._add(image, str(image.made_ref), ids, "made", key)

    def _pull(self, image: Image) -> str:
        """Pull the image into the engine; return why that is impossible, or nothing."""
        if not image.pull:
            return "it is in no registry"
        if self.source == "make":
            return "no registry was asked (--source make)"
        host = Reference.parse(image.pull).host
        if not self._is_reachable(host):
            return f"{host} does not answer"
        engine.require(f"pulling {image.pull}")
        with self.progress.step(f"pulling {image.pull}"):
            reason = engine.pull(image.pull)
        if reason is None:
            return ""
        self.progress.note(f"{image.name}: cannot pull {image.pull}: {reason}")
        return f"cannot pull {image.pull}: {reason}"

    def _saved(self, image: Image, origin: str, key: str) -> Record:
        ref = str(image.pull)
        with self.progress.step("writing the archive"):
            ids = engine.save(ref, self.store.archive(image.name))
        return self._add(image, ref, ids, origin, key)

    def _from_archive(self, image: Image, given: Path) -> Record:
        """Take the archive that the user gave; it must hold the image that the manifest names."""
        thing = f"{image.archive_variable}={given}"
        fix = f"Make it with: docker save {image.pull} | gzip > {image.name}.tar.gz"
        if not given.is_file():
            raise UserError(f"{thing}: no such file", fix)
        with naming_damage(thing, fix):
            tags, ids = ids_in_archive(given)
        path = Reference.parse(str(image.pull)).path
        refs = [f"docker.io/{tag.removeprefix('docker.io/')}" for tag in tags]
        ref = next((ref for ref in refs if ref.rpartition(":")[0] == f"docker.io/{path}"), None)
        if ref is None:
            raise UserError(f"{thing}: holds {', '.join(tags) or 'no tag'}, not {path}", fix)
        if ref != image.pull:
            self.progress.note(f"{image.name}: the archive holds {ref}, not {image.pull}; using it")
        copy = self.store.work / f"{image.name}.given.partial"
        with self.progress.step(f"copying {given}"), naming_damage(thing, fix):
            with given.open("rb") as source:
                is_compressed = source.read(2) == b"\x1f\x8b"
                source.seek(0)
                with copy.open("wb") if is_compressed else compress(copy) as output:
                    shutil.copyfileobj(source, output, 1 << 20)
            ids = add_index(copy, ref, ids)
        copy.replace(self.store.archive(image.name))
        return self._add(image, ref, ids, "archive", _archive_key(given))

    def _add(self, image: Image, ref: str, ids: Ids, origin: str, key: str) -> Record:
        archive = self.store.archive(image.name)
        record = Record(image.name, ref, archive.name, ids.id, ids.digest, origin, key)
        self.store.add(record)
        self.progress.done(f"{origin} {ref}, {archive.stat().st_size / 1e6:.0f} MB")
        return record


def _engine_key(image: Image) -> str:
    return keys.hash_of(["engine", image.pull])


def _archive_key(path: Path) -> str:
    return keys.hash_of(["archive", sha256_of(path)])
