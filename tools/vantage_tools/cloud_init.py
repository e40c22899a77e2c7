"""The cloud-init file that turns a Debian or Ubuntu cloud image into a machine with Vantage: `vantage cloud-init`."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Annotated

import jinja2
import typer
import yaml

from vantage_tools.errors import UserError
from vantage_tools.paths import TOOLS
from vantage_tools.process import run

TEMPLATE = TOOLS / "machines/cloud-init/user-data.j2"
PROGRAM = TOOLS / "machines/provision.py"
# Where the machine mounts the disk that carries the project, and the label that NoCloud looks for.
MOUNT = "/mnt/vantage-seed"
LABEL = "cidata"
EXAMPLE_VARIABLES = "---\n# Variables of the roles, for example:\n# vantage_demo_faults: true"

app = typer.Typer(help="Write the cloud-init file of a VM that provisions itself.")
Project = Annotated[str, typer.Option(help="URL of a .tar.gz, git URL, or path on the machine")]
Images = Annotated[str, typer.Option(help="directory or URL of the image archives; default: images are pulled")]
FILE = {"exists": True, "dir_okay": False}
Variables = Annotated[Path | None, typer.Option("--vars", help="YAML file with variables of the roles", **FILE)]
SshKey = Annotated[Path | None, typer.Option(help="public key for the machine's default user", **FILE)]
CaCert = Annotated[Path | None, typer.Option(help="certificate of your network's own authority, PEM", **FILE)]


def user_data(
    project: str,
    images: str = "",
    variables: Path | None = None,
    ssh_key: Path | None = None,
    ca_cert: Path | None = None,
    mount: str = "",
) -> str:
    """Return the cloud-init file; raises UserError if the content of a file is invalid."""
    given = {"variables": variables, "ssh_key": ssh_key, "ca_cert": ca_cert}
    texts = {name: path.read_text(encoding="utf-8") if path else "" for name, path in given.items()}
    if variables and not isinstance(yaml.safe_load(texts["variables"]), dict):
        raise UserError(f"--vars {variables} is not a YAML mapping.", "write lines like name: value")
    if "PRIVATE KEY" in texts["ssh_key"]:
        raise UserError(f"--ssh-key {ssh_key} is a private key.", "use the file that ends in .pub")
    if ca_cert and "BEGIN CERTIFICATE" not in texts["ca_cert"]:
        raise UserError(f"--ca-cert {ca_cert} contains no PEM certificate.", "use a file with BEGIN CERTIFICATE in it")
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        texts | {"variables": texts["variables"] or EXAMPLE_VARIABLES},
        project=shlex.quote(project),
        images=shlex.quote(images) if images else "",
        mount=mount,
        label=LABEL,
        program=PROGRAM.read_text(encoding="utf-8"),
    )


@app.command("user-data")
def print_user_data(
    project: Project,
    images: Images = "",
    variables: Variables = None,
    ssh_key: SshKey = None,
    ca_cert: CaCert = None,
) -> None:
    """Print the file for a cloud or a hypervisor."""
    typer.echo(user_data(project, images, variables, ssh_key, ca_cert), nl=False)


@app.command()
def seed(
    out: Annotated[Path, typer.Argument(help="OUT.iso, or a directory")],
    project: Project = "",
    images: Images = "",
    variables: Variables = None,
    ssh_key: SshKey = None,
    ca_cert: CaCert = None,
    carry_project: Annotated[bool, typer.Option("--carry-project", help="include the committed project")] = False,
    carry_images: Annotated[
        Path | None, typer.Option(help="include the archives of `make images`, from their directory", exists=True)
    ] = None,
) -> None:
    """Write a disk for cloud-init, with everything on it."""
    if not project and not carry_project:
        raise UserError("the project's source is missing.", "add --carry-project, or --project URL")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if carry_project:
            run("git", "archive", "--format=tar.gz", f"--output={folder}/project.tar.gz", "HEAD")
            project = f"{MOUNT}/project.tar.gz"
        if carry_images:
            link_images(carry_images, folder / "images")
            images = f"{MOUNT}/images"
        mount = MOUNT if carry_project or carry_images else ""
        text = user_data(project, images, variables, ssh_key, ca_cert, mount)
        (folder / "user-data").write_text(text, encoding="utf-8")
        # cloud-init runs again on a machine that sees a new id.
        (folder / "meta-data").write_text(f"instance-id: vantage-{uuid.uuid4()}\nlocal-hostname: vantage\n")
        if out.suffix == ".iso":
            run("xorriso", "-as", "mkisofs", "-quiet", "-f", "-J", "-r", "-V", LABEL, "-o", out.absolute(), folder)
        else:
            shutil.copytree(folder, out, dirs_exist_ok=True)


def link_images(source: Path, target: Path) -> None:
    """Link the archives that index.json lists into a new directory; raises UserError if one is missing."""
    try:
        index = json.loads((source / "index.json").read_text(encoding="utf-8"))
        target.mkdir()
        for name in ["index.json", "vars.yml", *(entry["file"] for entry in index.values())]:
            (target / name).symlink_to((source / name).resolve(strict=True))
    except FileNotFoundError as error:
        fix = "run `make images` and use the directory that it prints"
        raise UserError(f"image archive is missing: {error.filename}.", fix) from None
