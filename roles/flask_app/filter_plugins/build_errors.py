"""What went wrong in a build, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A compiler's or a builder's output may be thousands of lines; what failed comes last.
SHOWN_LINES = 40

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


def build_error(output: str) -> str:
    """The last lines of a failed build."""
    lines = output.strip().splitlines()
    return "\n".join(lines[-SHOWN_LINES:])


def build_advice(output: str, source: str, recipe: Mapping[str, Any], buildkit: bool) -> str:
    """What the user can do about a failed build; `buildkit` is whether the host has it."""
    if not recipe["dockerfile"]:
        listed = f"Correct {recipe['dependencies']}, or add a Dockerfile to the source."
        if NEEDS_COMPILER.search(output):
            return (
                "A package must be compiled for the Python of the base image, which has no compiler. Choose a version "
                "that has a wheel for this Python (for psycopg2: psycopg2-binary), or add a Dockerfile to the source."
            )
        return listed
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
