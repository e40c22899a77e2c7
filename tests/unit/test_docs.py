"""Links, make targets and decision records in the documents."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from rendering import ROOT

# Made by tools, or not ours.
SKIPPED = {".git", ".venv", ".vagrant", "node_modules"}
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s+<?(\S+?)>?(?:\s|$)", re.MULTILINE)
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")


def documents() -> list[Path]:
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = sorted(name for name in names if name not in SKIPPED and not name.endswith("cache"))
        found += [Path(folder, file) for file in sorted(files) if file.endswith(".md")]
    return found


def prose(path: Path) -> str:
    """The text without its code, where brackets mean something else."""
    return CODE.sub("``", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", LINK.sub(lambda link: link[0][1 : link[0].index("]")], heading).lower())
        slug = slug.strip().replace(" ", "-")
        same = sum(1 for known in found if re.fullmatch(re.escape(slug) + r"(-\d+)?", known))
        found.add(f"{slug}-{same}" if same else slug)
    return found


def broken_links(path: Path) -> list[str]:
    text = prose(path)
    broken = []
    for target in LINK.findall(text) + REFERENCE.findall(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists():
            broken.append(f"{target}: file not found")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there):
            broken.append(f"{target}: heading not found; found {', '.join(sorted(anchors(there)))}")
    return broken


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    assert not broken_links(path)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](missing.md) [b](#two) [c](#one) [d](https://example.org/x) `[e](gone.md)`\n")
    assert [line.split(":")[0] for line in broken_links(page)] == ["missing.md", "#two"]


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in documents():
        named = set(re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")))
        assert named <= targets, (path, named - targets)


ADRS = ROOT / "docs/adr"
RECORDS = sorted(ADRS.glob("[0-9]*.md"))


def test_the_index_of_decisions_is_complete() -> None:
    rows = re.findall(
        r"^\| \[(\d{3})\]\((\S+)\) \| (.+) \| (.+) \| (\d{4}-\d\d-\d\d) \|$", (ADRS / "README.md").read_text(), re.M
    )
    assert [name for _, name, *_ in rows] == [path.name for path in RECORDS]
    for number, name, _, status, date in rows:
        lines = (ADRS / name).read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {number}: ")
        # A superseding record is a link in the record and a number in the index.
        found = re.sub(r"\[(\d{3})\]\(\S+\)", r"\1", lines[2])
        assert found.startswith(f"Status: {status} · Date: {date}"), name


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_a_decision_names_its_alternatives(path: Path) -> None:
    headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS


SECTIONS = ["Context", "Decision", "Alternatives considered", "Consequences"]
