"""`vantage --help`: the everyday commands come first, and each command has one line that fits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import typer
from vantage_tools.cli import app

GROUP = typer.main.get_command(app)


def every_command(group: typer.core.TyperGroup, prefix: str = "") -> Iterator[tuple[str, typer.core.TyperCommand]]:
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, typer.core.TyperGroup):
            yield from every_command(command, f"{prefix}{name} ")


def test_the_everyday_commands_come_first_in_the_help() -> None:
    assert isinstance(GROUP, typer.core.TyperGroup)
    panels = [(command.rich_help_panel, name) for name, command in GROUP.commands.items()]
    assert list(dict.fromkeys(panel for panel, _ in panels)) == ["Everyday", "Development", "Machines"]
    everyday = [name for panel, name in panels if panel == "Everyday"]
    assert everyday == ["up", "verify", "status", "report", "logs", "shell", "password", "down"]


@pytest.mark.parametrize(
    ("name", "command"), [*every_command(GROUP)], ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_command_has_one_line_of_help_that_fits_a_terminal(name: str, command: typer.core.TyperCommand) -> None:
    line = (command.help or "").split("\n\n")[0]
    assert line.endswith(".")
    assert len(line) <= (65 if " " in name else 59)
