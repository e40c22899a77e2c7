"""The image manifest: complete, pinned, and loud about mistakes."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import yaml
from machines import SYSTEMS
from vantage_tools.errors import UserError
from vantage_tools.images.manifest import Manifest, Reference, load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return load(ROOT)


def checkout(tmp_path: Path, images: str) -> Path:
    (tmp_path / "tools/images").mkdir(parents=True)
    (tmp_path / "tools/images/images.yml").write_text(textwrap.dedent(images))
    (tmp_path / "app").mkdir()
    (tmp_path / "app/pyproject.toml").write_text('[project]\nversion = "3.2.1"\n')
    return tmp_path


def test_every_service_has_an_image(manifest: Manifest) -> None:
    defaults = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    wanted = set(re.findall(r"^(\w+_image): docker\.io/", defaults, re.MULTILINE))
    assert {"prometheus_image", "vantage_app_image"} <= wanted
    assert {image.variable for image in manifest.select([])} == wanted


def test_the_pulled_image_is_the_default_of_its_role(manifest: Manifest) -> None:
    defaults = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    wanted = dict(re.findall(r"^(\w+_image): (docker\.io/.+)", defaults, re.MULTILINE))
    pulled = {image.variable: image.pull for image in manifest.select([]) if image.pull}
    assert pulled == {variable: wanted[variable] for variable in pulled}


def test_the_system_image_is_never_sent_to_hosts(manifest: Manifest) -> None:
    assert "system" not in {image.name for image in manifest.select([])}
    assert manifest.select(["system"])[0].local


def test_no_tag_moves(manifest: Manifest) -> None:
    for image in manifest.images:
        for ref in filter(None, (image.pull, image.made_ref)):
            assert Reference.parse(ref).tag not in ("latest", "main", "")


def test_go_images_are_pinned_in_their_go_mod(manifest: Manifest) -> None:
    for image in manifest.images:
        if image.make.get("kind") != "go":
            continue
        text = (ROOT / "tools/images" / image.name / "go.mod").read_text()
        required = rf"(?m)^\s*(require )?{re.escape(image.make['module'])} {re.escape(image.make['version'])}$"
        assert re.search(required, text), f"tools/images/{image.name}/go.mod pins another version than images.yml"
        for package in image.make["binaries"]:
            assert package in text, f"tools/images/{image.name}/go.mod has no tool line for {package}"
        assert (ROOT / "tools/images" / image.name / "go.sum").stat().st_size > 0


def test_a_made_tag_names_the_version_that_is_built(manifest: Manifest) -> None:
    for image in manifest.images:
        versions = [v for k, v in image.make.get("ldflags_x", {}).items() if k.lower().endswith("version")]
        for version in versions:
            assert Reference.parse(image.made_ref).tag.lstrip("v") == version.lstrip("v")


def test_a_service_whose_image_may_be_missing_can_be_switched_off(manifest: Manifest) -> None:
    missing = [image.name for image in manifest.images if not image.make]
    assert "grafana" in missing
    for name in missing:
        specs = yaml.safe_load((ROOT / "roles" / name / "meta/argument_specs.yml").read_text(encoding="utf-8"))
        assert f"{name}_enabled" in specs["argument_specs"]["main"]["options"]
    (grafana,) = manifest.select(["grafana"])
    assert grafana.archive_variable == "VANTAGE_GRAFANA_ARCHIVE"


def test_selecting_an_unknown_image_names_the_known_ones(manifest: Manifest) -> None:
    with pytest.raises(UserError, match=r"'lokki'.*loki"):
        manifest.select(["lokki"])


@pytest.mark.parametrize("text", ["prom/prometheus", "docker.io/prom/prometheus", "docker.io/Prom/x:1", "x:1"])
def test_a_reference_must_be_written_in_full(text: str) -> None:
    with pytest.raises(UserError, match="host/path:tag"):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{name: x, pul: docker.io/a/b:1}", "unknown setting pul"),
        ("{name: x, make: {kind: go, ref: 'docker.io/a/b:1', tag: 1}}", "unknown setting tag"),
        ("{name: x, pull: 'a:1'}", "host/path:tag"),
    ],
)
def test_a_mistake_in_the_manifest_is_named(tmp_path: Path, entry: str, message: str) -> None:
    root = checkout(tmp_path, f"images: [{entry}]\nbases: {{}}\n")
    with pytest.raises(UserError, match=message):
        load(root)


def test_every_entry_can_be_got(manifest: Manifest) -> None:
    assert len({image.name for image in manifest.images}) == len(manifest.images)
    for image in manifest.images:
        assert image.pull or image.made_ref
        assert image.make.get("kind") in {"go", "debian", "app", None}
        assert image.make.get("base") in {*manifest.bases, None}


def test_the_app_image_carries_the_version_of_its_project(tmp_path: Path) -> None:
    root = checkout(tmp_path, "images: [{name: app, ref: docker.io/a/shop, make: {kind: app}}]\nbases: {}\n")
    assert load(root).images[0].made_ref == "docker.io/a/shop:3.2.1"


def test_every_supported_system_has_a_machine_to_test_on(manifest: Manifest) -> None:
    """All but the RHEL-like one, whose packages nothing here can unpack."""
    text = (ROOT / "roles/preflight/vars/main.yml").read_text()
    (listed,) = re.findall(r"__preflight_systems: \[(.*)\]", text)
    supported = {name.lower().replace(" ", "").replace(".", "") for name in listed.split(",")}
    made = {image.made_ref.rpartition(":")[2] for image in manifest.images if image.local and image.made_ref}
    assert made == supported
    assert set(SYSTEMS) == supported | {"rhel9"}


def test_another_distributions_base_has_its_key(manifest: Manifest) -> None:
    for base in manifest.bases.values():
        if base.suite in ("bookworm", "trixie"):
            assert base.key is None
        else:
            assert base.key
            assert "BEGIN PGP PUBLIC KEY BLOCK" in base.key.read_text()


def test_lists_in_a_list_of_packages_are_joined(tmp_path: Path) -> None:
    root = checkout(
        tmp_path,
        """
        images: []
        bases: {one: {suite: trixie, packages: [[a, b], c]}}
        """,
    )
    assert load(root).bases["one"].packages == ["a", "b", "c"]


def test_an_unknown_setting_of_a_base_is_refused(tmp_path: Path) -> None:
    root = checkout(tmp_path, "{images: [], bases: {one: {suite: trixie, packages: [a], mirror: x}}}")
    with pytest.raises(UserError, match="mirror"):
        load(root)
