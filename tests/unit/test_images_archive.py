"""Archives: reproducible, with the id an engine will show, and complete or not there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from archives import write_tar
from vantage_tools.images.archive import Ids, new_layer, write_archive, write_image
from vantage_tools.images.base import make_scratch

REF = "docker.io/prom/prometheus:v3.13.5"
SETTINGS = {"User": "nobody", "Entrypoint": ["/bin/x"], "ExposedPorts": ["9090/tcp"], "Volumes": ["/data"]}


def make(folder: Path) -> tuple[Path, Ids]:
    folder.mkdir(exist_ok=True)
    program = folder / "program"
    program.write_bytes(b"\x7fELF" + bytes(5000))
    layer_path = folder / "layer.tar"
    with new_layer(layer_path) as layer:
        layer.directory("/data", 0o775, 65534, 65534)
        layer.file("/bin/x", program, 0o755)
        layer.data("/etc/x/x.yml", b"a: 1\n")
        layer.symlink("/bin/y", "x")
    target = folder / "image.tar.gz"
    return target, write_image(target, REF, [layer_path], SETTINGS, "amd64")


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, first_ids = make(tmp_path / "a")
    second, second_ids = make(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    assert first_ids == second_ids


def test_the_id_is_the_hash_of_the_config(tmp_path: Path) -> None:
    archive, ids = make(tmp_path)
    files = members(archive)
    entry = json.loads(files["manifest.json"])[0]
    assert entry["RepoTags"] == [REF]
    assert ids.id == "sha256:" + hashlib.sha256(files[entry["Config"]]).hexdigest()
    config = json.loads(files[entry["Config"]])
    layer = files[entry["Layers"][0]]
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert config["config"]["ExposedPorts"] == {"9090/tcp": {}}
    assert config["config"]["Volumes"] == {"/data": {}}
    assert any(item.startswith("PATH=") for item in config["config"]["Env"])


def test_the_oci_index_names_the_same_image(tmp_path: Path) -> None:
    archive, ids = make(tmp_path)
    files = members(archive)
    index = json.loads(files["index.json"])
    assert index["manifests"][0]["digest"] == ids.digest
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == REF
    manifest = files["blobs/sha256/" + ids.digest.removeprefix("sha256:")]
    assert json.loads(manifest)["config"]["digest"] == ids.id


def test_owners_modes_and_parents_are_as_asked(tmp_path: Path) -> None:
    archive, _ = make(tmp_path)
    files = members(archive)
    layer = files[json.loads(files["manifest.json"])[0]["Layers"][0]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {member.name: member for member in tar}
    assert list(found) == ["data", "bin", "bin/x", "etc", "etc/x", "etc/x/x.yml", "bin/y"]
    assert (found["data"].uid, found["data"].gid, found["data"].mode) == (65534, 65534, 0o775)
    assert found["bin/x"].mode == 0o755
    assert {member.mtime for member in found.values()} == {1735689600}


def test_no_half_written_archive_is_left(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "image.tar.gz", REF, [tmp_path / "absent.tar"], SETTINGS, "amd64")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(gzip.compress(b"layer", mtime=0), "+gzip"), (b"\x28\xb5\x2f\xfd layer", "+zstd"), (b"\x28\xb5 layer", "")],
    ids=["gzip", "zstd", "plain"],
)
def test_packed_layers_stay_packed_and_are_called_so(tmp_path: Path, layer: bytes, kind: str) -> None:
    (tmp_path / "layer").write_bytes(layer)
    ids = write_archive(tmp_path / "image.tar.gz", REF, [tmp_path / "layer"], b"{}")
    files = members(tmp_path / "image.tar.gz")
    (item,) = json.loads(files["blobs/sha256/" + ids.digest.removeprefix("sha256:")])["layers"]
    assert item["mediaType"] == f"application/vnd.oci.image.layer.v1.tar{kind}"
    assert files["blobs/sha256/" + item["digest"].removeprefix("sha256:")] == layer


def test_a_layer_that_is_there_twice_is_written_once(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"layer")
    write_archive(tmp_path / "image.tar.gz", REF, [tmp_path / "layer"] * 2, b"{}")
    with tarfile.open(tmp_path / "image.tar.gz") as tar:
        assert len(tar.getnames()) == len(set(tar.getnames()))


def test_a_scratch_file_system_takes_its_certificates_from_debian(tmp_path: Path) -> None:
    content = {
        "./etc/ssl/certs/ca-certificates.crt": b"CERT",
        "./usr/share/zoneinfo/Europe/Paris": b"TZif",
        "./bin/sh": b"#!",
    }
    debian = write_tar(tmp_path / "debian.tar", content)
    target = tmp_path / "scratch.tar"
    make_scratch(target, debian, {"loki": 10001})
    with tarfile.open(target) as tar:
        names = tar.getnames()
        certificates = tar.extractfile("etc/ssl/certs/ca-certificates.crt")
        passwd = tar.extractfile("etc/passwd")
        assert certificates is not None and passwd is not None
        assert certificates.read() == b"CERT"
        assert "loki:x:10001:10001" in passwd.read().decode()
        assert tar.getmember("tmp").mode == 0o1777
    assert "usr/share/zoneinfo/Europe/Paris" in names
    assert "bin/sh" not in names


def test_the_gzip_header_holds_no_time(tmp_path: Path) -> None:
    archive, _ = make(tmp_path)
    assert archive.read_bytes()[4:8] == bytes(4)
    with gzip.open(archive) as stream:
        assert stream.read(5)
