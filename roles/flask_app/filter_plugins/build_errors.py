"""What went wrong in a build, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# A compiler's or a builder's output may be thousands of lines; what failed comes last.
SHOWN_LINES = 20

NEEDS_BUILDKIT = re.compile(
    r"unknown instruction|requires BuildKit|unknown flag: (?:chmod|link|parents|mount)", re.IGNORECASE
)
# In the summary at the end; the same words earlier belong to a step that succeeded.
NEEDS_FRONTEND = re.compile(
    r"^ > resolve image config for \S*docker/dockerfile|failed to resolve source metadata for \S*docker/dockerfile",
    re.MULTILINE,
)
NEEDS_COMPILER = re.compile(
    r"pg_config|mysql_config|command '?(?:gcc|g\+\+|cc|cargo)\S* failed|(?:gcc|g\+\+|cc|cargo)'?:? (?:command )?not found"
    r"|No such file or directory: '?(?:gcc|g\+\+|cc|cargo)|failed building wheel|Unknown compiler|Rust toolchain",
    re.IGNORECASE,
)


INDEX_UNREACHABLE = re.compile(r"connection broken by '|Could not fetch URL|Temporary failure in name resolution")
# BuildKit's plain progress: the number of the step, the seconds since its start, and its output.
STEP_LINE = re.compile(r"#(\d+) (?:\d+\.\d+ ?)?(.*)")
# The first line of a step: its stage, its position, and the instruction.
STEP_NAME = re.compile(r"\[(?:[^\]]*\d+/\d+)\] (.+)|\[internal\] load metadata for (\S+)")
# What the builder before BuildKit prints of the step, and pip of the package.
LEGACY_STEP = re.compile(r"^The command '/bin/sh -c (.+)' returned a non-zero code", re.MULTILINE | re.DOTALL)
FAILED_PACKAGE = re.compile(
    r"No matching distribution found for ([\w.-]+)|[Ff]ailed (?:building wheel for|to build)(?! installable) '?([\w.-]+)"
)
COLLECTED_PACKAGE = re.compile(r"^ *Collecting ([\w.-]+)", re.MULTILINE)
LISTS = (
    "requirements*.txt",
    "requirements/*.txt",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "Pipfile",
    "Pipfile.lock",
)


def failed_step(output: str) -> list[str]:
    """The lines of the step that failed, without BuildKit's numbers; all lines of another builder."""
    lines = output.strip().splitlines()
    steps = [match for line in lines if (match := STEP_LINE.fullmatch(line))]
    failed = next((step[1] for step in reversed(steps) if step[2].startswith("ERROR")), "")
    return [step[2] for step in steps if step[1] == failed and not step[2].startswith("sha256:")] if failed else lines


def build_error(output: str) -> str:
    """The last lines of a failed build: those of the step that failed."""
    return "\n".join(failed_step(output)[-SHOWN_LINES:])


def instructions(dockerfile: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each instruction, its continued lines joined."""
    begin, parts = 0, list[str]()
    for number, line in enumerate(dockerfile.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        begin = begin if parts else number
        parts.append(text.removesuffix("\\").strip())
        if not text.endswith("\\"):
            yield begin, " ".join(parts)
            parts = []


def failed_instruction(output: str, dockerfile: str) -> str:
    """`Dockerfile:3: RUN pip install …` for the instruction that failed; empty if it is not found."""
    first = failed_step(output)[:1]
    step, legacy = STEP_NAME.match(first[0]) if first else None, LEGACY_STEP.search(output)
    command, image = step.groups() if step else (legacy[1] if legacy else "", "")
    wanted = " ".join((command or "").split())
    for number, text in instructions(dockerfile):
        plain = " ".join(text.split())
        is_base = image and plain.upper().startswith("FROM ") and image.rpartition("/")[2] in plain
        if is_base or (wanted and (plain == wanted or plain.endswith(wanted))):
            return f"Dockerfile:{number}: {text[:120]}"
    return ""


def failed_package(output: str, folder: str) -> str:
    """`requirements.txt:4: psycopg2==2.8.3` for the package that pip cannot install; its name alone if it is not listed."""
    found = [first or second for first, second in FAILED_PACKAGE.findall(output)]
    # pip does not name one whose metadata it cannot make, but says before what it collects.
    found = found or (
        COLLECTED_PACKAGE.findall("\n".join(failed_step(output))) if "subprocess-exited-with-error" in output else []
    )
    if not found:
        return ""
    name = re.sub(r"[-_.]+", "[-_.]+", found[-1])
    listed = re.compile(rf"""^[\s"']*{name}(?![\w.-])""", re.IGNORECASE)
    for path in (path for pattern in LISTS for path in sorted(Path(folder).glob(pattern))):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if listed.match(line):
                return f"{path.relative_to(folder)}:{number}: {line.partition(';')[0].strip().rstrip(',')}"
    return found[-1]


def build_advice(output: str, source: str, recipe: Mapping[str, Any], buildkit: bool) -> str:
    """What failed, by file and line, and what the user can do; `buildkit` is whether the host has it."""
    dockerfile = Path(source, "Dockerfile")
    has_dockerfile = recipe["dockerfile"] and dockerfile.is_file()
    text = dockerfile.read_text(encoding="utf-8", errors="replace") if has_dockerfile else ""
    package = failed_package(output, source)
    failed = ", ".join(filter(None, [failed_instruction(output, text), package]))
    if INDEX_UNREACHABLE.search("\n".join(failed_step(output))):
        advice = (
            "pip cannot reach the package index, or does not trust its certificate. A Dockerfile gets the controller's index "
            "by `ARG PIP_INDEX_URL`; the certificate of a private authority must be in the image."
        )
    else:
        advice = advise_package(output, recipe) if package else advise_builder(output, source, recipe, buildkit)
    return f"Failed at {failed}.\n{advice}" if failed else advice


def advise_package(output: str, recipe: Mapping[str, Any]) -> str:
    """For a package that pip cannot install."""
    is_own, is_compiled = recipe["dockerfile"], NEEDS_COMPILER.search(output)
    image = "image" if is_own else "base image"
    why, wanted = f"pip cannot install this version for the Python of the {image}", "a newer version"
    if is_compiled:
        why = f"This version must be compiled for the Python of the {image}" + (
            "" if is_own else ", which has no compiler"
        )
        wanted = "a version that has a wheel for this Python (for psycopg2: psycopg2-binary)"
    other = "set FROM to an image with the Python that it was made for" if is_own else "add a Dockerfile to the source"
    compiler = ", or install a compiler and the headers before this line" if is_own and is_compiled else ""
    return f"{why}. Choose {wanted}, or {other}{compiler}."


def advise_builder(output: str, source: str, recipe: Mapping[str, Any], buildkit: bool) -> str:
    """For any other failure of the build."""
    if not recipe["dockerfile"]:
        if NEEDS_COMPILER.search(output):
            return advise_package(output, recipe)
        return f"Correct {recipe['dependencies']}, or add a Dockerfile to the source."
    if NEEDS_FRONTEND.search(output):
        return (
            "The line `# syntax=…` of the Dockerfile makes the builder pull the image docker/dockerfile, and the host "
            "cannot. Remove the line: the host's BuildKit knows `RUN --mount` without it, and heredocs from Docker 23 on."
        )
    if NEEDS_BUILDKIT.search(output):
        return (
            "If the instruction is not misspelt, the Dockerfile has a heredoc or an option that this builder does not "
            "know. "
            + (
                "Add the line `# syntax=docker/dockerfile:1` at the top of the Dockerfile, or use Docker 23 or later "
                "(docker_source: docker)."
                if buildkit
                else "It needs BuildKit: install the package docker-buildx, or docker-buildx-plugin where Docker comes "
                "from its own repository."
            )
        )
    return f"Try `docker build {source}` on your machine."


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"build_advice": build_advice, "build_error": build_error}
