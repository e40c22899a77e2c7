"""The command line of images/vantage-images."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from . import keys, registry
from .engine import Docker
from .errors import ImageError
from .getting import SOURCES, Getter, Missing
from .gobuild import GoBuild, architecture, require_room
from .manifest import Manifest, Reference, load
from .progress import Progress
from .store import Store, cache_root

ROOT = Path(__file__).resolve().parents[2]
# Caches of one tool, measured, and some air.
_TOOL_BYTES = 3 * 1024**3


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="images/vantage-images",
        description="Get every image that Vantage runs: pulled where a registry answers, else made from packages.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    get = commands.add_parser("get", help="get images into the cache; quiet when there is nothing to do")
    get.add_argument("names", nargs="*", metavar="NAME", help="as in images/images.yml; default: all for hosts")
    get.add_argument("--source", choices=SOURCES, default="auto", help="default: %(default)s")
    get.add_argument("--refresh", action="store_true", help="get them again even when they are there")
    load_ = commands.add_parser("load", help="get images and load them into the local engine")
    load_.add_argument("names", nargs="+", metavar="NAME")
    load_.add_argument("--source", choices=SOURCES, default="auto", help="default: %(default)s")
    commands.add_parser("list", help="show what is there and where it came from").add_argument(
        "--json", action="store_true"
    )
    clean = commands.add_parser("clean", help="remove build caches and unfinished work")
    clean.add_argument("--all", action="store_true", help="the images too")
    tool = commands.add_parser("tool", help="make a program for this machine, and print where it is")
    tool.add_argument("name", metavar="NAME", help="under tools: in images/images.yml")
    commands.add_parser("resolve", help="ask the registry for the digest of every tag")
    return parser


def _get(manifest: Manifest, store: Store, names: list[str], source: str, refresh: bool) -> list[Missing]:
    images = manifest.select(names)
    docker = Docker()
    missing: list[Missing] = []
    with store.lock():
        if refresh:
            for image in images:
                store.drop(image.name)
        probe = Getter(manifest, store, docker, Progress(0), source)
        absent = [image for image in images if not probe.done(image)]
        getter = Getter(manifest, store, docker, Progress(len(absent)), source)
        try:
            for image in absent:
                result = getter.get(image)
                if isinstance(result, Missing):
                    missing.append(result)
                    wish = f"; {image.archive_variable}=FILE names an archive of it" if image.archive_variable else ""
                    print(f"{image.name}: missing ({result.why}){wish}. Everything else runs without it.",
                          file=sys.stderr)  # fmt: skip
        finally:
            # Also after a failure: what was got until then can be used.
            store.write_index(manifest)
    return missing


def _load(manifest: Manifest, store: Store, names: list[str], source: str) -> None:
    docker = Docker()
    docker.require("loading images")
    _get(manifest, store, names, source, refresh=False)
    for image in manifest.select(names):
        record = store.record(image.name)
        if record is None:
            raise ImageError(f"image {image.name}", "is not to be had here", "see the line above")
        if docker.image_id(record.ref) not in (record.id, record.digest):
            docker.load(store.folder / record.file)


def _list(manifest: Manifest, store: Store, as_json: bool) -> None:
    rows = [(image.name, store.record(image.name)) for image in manifest.images]
    if as_json:
        print(json.dumps({name: record and record.__dict__ for name, record in rows}, indent=2))
        return
    for name, record in rows:
        if record is None:
            print(f"{name:14} missing")
            continue
        size = (store.folder / record.file).stat().st_size / 1e6
        print(f"{name:14} {record.origin:8} {size:6.0f} MB  {record.ref}  {record.id[7:19]}")


def _tool(manifest: Manifest, store: Store, name: str) -> Path:
    """Return the program `name`, built when it is not there in the wanted version."""
    if name not in manifest.tools:
        raise ImageError(f"tool {name!r}", "is not in images/images.yml", f"use one of: {', '.join(manifest.tools)}")
    make, source = manifest.tools[name], ROOT / "images" / name
    (program,) = make["binaries"].values()
    folder = store.cache / "tools" / f"{name}-{keys.program_key(make, source, architecture())}"
    with store.lock():
        if not folder.is_dir():
            progress = Progress(1)
            progress.image(name)
            require_room(store.cache, _TOOL_BYTES)
            folder.parent.mkdir(exist_ok=True)
            GoBuild(name, make, source, store.cache, progress).run(folder)
            progress.done(f"made {make['version']}")
            for old in folder.parent.glob(f"{name}-*"):
                if old != folder:
                    shutil.rmtree(old)
    return folder / Path(program).name


def _clean(store: Store, everything: bool) -> None:
    with store.lock():
        shutil.rmtree(store.cache / "go", ignore_errors=True)
        shutil.rmtree(store.work, ignore_errors=True)
        if everything:
            # Its content only: a running system container has the folder itself mounted.
            for path in store.folder.iterdir():
                path.unlink()


def _resolve(manifest: Manifest) -> int:
    failed = 0
    down: set[str] = set()
    for image in manifest.images:
        if not image.pull:
            continue
        reference = Reference.parse(image.pull)
        if reference.host in down:
            failed += 1
            continue
        if not registry.answers(reference.host):
            print(f"{reference.host}: does not answer, so no tag of it can be checked", file=sys.stderr)
            down.add(reference.host)
            failed += 1
            continue
        try:
            print(f"{image.pull}@{registry.digest_of(reference)}")
        except registry.RegistryError as error:
            print(f"{image.pull}: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status. A missing optional image is no failure."""
    options = _parser().parse_args(arguments)
    store = Store(cache_root())
    try:
        manifest = load(ROOT)
        if options.command == "get":
            _get(manifest, store, options.names, options.source, options.refresh)
        elif options.command == "load":
            _load(manifest, store, options.names, options.source)
        elif options.command == "list":
            _list(manifest, store, options.json)
        elif options.command == "tool":
            print(_tool(manifest, store, options.name))
        elif options.command == "clean":
            _clean(store, options.all)
        else:
            return _resolve(manifest)
    except ImageError as error:
        print(f"\nvantage-images: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a folder that cannot be written: whichever file it was, the person has to know which.
        refused = ImageError(
            str(error.filename or store.cache),
            error.strerror or str(error),
            "make that file or folder usable (room, rights), then run it again: it goes on from the last finished step",
        )
        print(f"\nvantage-images: {refused}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvantage-images: stopped; run it again and it goes on from the last finished step", file=sys.stderr)
        return 130
    return 0
