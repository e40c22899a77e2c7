"""The subcommands of `vantage images`."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from vantage_tools.errors import UserError
from vantage_tools.paths import ROOT, cache_dir

from . import cache_keys, docker, registry
from .getter import Getter
from .gobuild import GoBuild, architecture, require_space
from .manifest import Image, Manifest, Reference, load
from .progress import Progress
from .store import Store

# Caches of the build of one tool: measured, with a margin.
_TOOL_BYTES = 3 * 1024**3

app = typer.Typer(help="Pull the images, or build them if no registry answers.", no_args_is_help=True)

# Exit statuses of `check`.
TAG_NOT_FOUND = 1
NO_ANSWER = 3

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="As in images.yml; default: all for hosts.")]


def _world() -> tuple[Manifest, Store]:
    return load(ROOT), Store(cache_dir().expanduser().absolute())


def _get(names: list[str] | None, refresh: bool = False) -> tuple[Store, list[Image]]:
    """Get images and return them; their records are in the store."""
    manifest, store = _world()
    images = manifest.select(names or [])
    with store.lock():
        for image in images if refresh else ():
            store.drop(image.name)
        current = Getter(manifest, store, Progress(0)).current
        absent = [image for image in images if not current(image)]
        getter = Getter(manifest, store, Progress(len(absent)))
        try:
            for image in absent:
                getter.get(image)
        finally:
            # After a failure too: the images so far can be used.
            store.write_index(manifest)
    return store, images


@app.command("get")
def get_images(
    names: Names = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Get them again.")] = False,
) -> None:
    """Get images into the cache; prints nothing when all are there."""
    _get(names, refresh)


@app.command("load")
def load_images(names: Names = None) -> None:
    """Get images and load them into the local engine."""
    docker.require("loading images")
    store, images = _get(names)
    for image in images:
        record = store.record(image.name)
        if record is None and names:
            raise UserError(f"image {image.name} is not available", "See the line above.")
        if record and docker.image_id(record.ref) not in (record.id, record.digest):
            docker.load(store.folder / record.file, f"Run: vantage images get --refresh {image.name}")


@app.command("list")
def list_images() -> None:
    """Show each image, its size and where it came from."""
    manifest, store = _world()
    for image in manifest.images:
        shown = "missing"
        if record := store.record(image.name):
            size = (store.folder / record.file).stat().st_size / 1e6
            shown = f"{record.origin:8} {size:6.0f} MB  {record.ref}  {record.id[7:19]}"
        print(f"{image.name:18} {shown}")


@app.command("pin")
def pin_module(name: Annotated[str, typer.Argument(metavar="NAME", help="As in images.yml.")]) -> None:
    """Write go.mod and go.sum of an image or tool."""
    manifest, store = _world()
    make = manifest.tools.get(name) or manifest.select([name])[0].make
    if "module" not in make:
        raise UserError(f"image {name} is not made from a Go module.")
    progress = Progress(1)
    progress.begin(name)
    with store.lock(), progress.step(f"pinning {make['module']} {make['version']}"):
        GoBuild(name, make, manifest.folder, store.cache, progress).pin()


@app.command("tool")
def print_tool(name: Annotated[str, typer.Argument(metavar="NAME", help="Under tools: in images.yml.")]) -> None:
    """Build a program for this machine and print its path."""
    print(make_tool(name))


def make_tool(name: str) -> Path:
    """Return the path of a program for this machine, building it first."""
    manifest, store = _world()
    if name not in manifest.tools:
        raise UserError(f"unknown tool: {name!r} ({', '.join(manifest.tools)})")
    make, progress = manifest.tools[name], Progress(1)
    build = GoBuild(name, make, manifest.folder, store.cache, progress)
    folder = store.cache / "tools" / f"{name}-{cache_keys.program_key(make, build.folder, architecture())}"
    with store.lock():
        if not folder.is_dir():
            progress.begin(name)
            require_space(store.cache, _TOOL_BYTES)
            folder.parent.mkdir(exist_ok=True)
            for old in folder.parent.glob(f"{name}-*"):
                shutil.rmtree(old)
            build.run(folder)
            progress.done(f"made {make['version']}")
    (program,) = make["binaries"].values()
    return folder / Path(program).name


@app.command("clean")
def remove_caches(
    everything: Annotated[bool, typer.Option("--all", help="The images too.")] = False,
) -> None:
    """Remove build caches and unfinished work."""
    _, store = _world()
    with store.lock():
        shutil.rmtree(store.cache / "go", ignore_errors=True)
        shutil.rmtree(store.work, ignore_errors=True)
        # The folder itself stays, because a running system container has it mounted.
        for path in store.folder.iterdir() if everything else ():
            path.unlink()


@app.command("check")
def check_tags() -> None:
    """Ask the registry for the digest of every pinned tag.

    Exit status: 0 when every tag exists, 1 when one does not, 3 when a registry does not answer and none is known to be
    missing.
    """
    manifest, _ = _world()
    refs = [image.pull for image in manifest.images if image.pull]
    refs += re.findall(r"^ARG BASE_IMAGE=(\S+)$", (manifest.root / "app/Dockerfile").read_text(), re.MULTILINE)
    statuses = {_check(ref) for ref in refs}
    raise typer.Exit(TAG_NOT_FOUND if TAG_NOT_FOUND in statuses else max(statuses))


def _check(ref: str) -> int:
    """Print what the registry answers about one tag, and return the exit status that it calls for."""
    reference = Reference.parse(ref)
    try:
        if not registry.is_reachable(reference.host):
            raise registry.RegistryError(reference.host)
        print(f"{ref}@{registry.digest_of(reference)}")
    except registry.TagNotFoundError:
        print(f"{ref}: tag not found", file=sys.stderr)
        return TAG_NOT_FOUND
    except registry.RegistryError as error:
        print(f"{ref}: registry does not answer ({error})", file=sys.stderr)
        return NO_ANSWER
    return 0
