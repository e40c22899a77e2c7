"""Quoting for systemd unit files."""

from __future__ import annotations

from typing import Any


def systemd_quote(value: Any) -> str:
    """One word of an ExecStart= line, as systemd.service(5) and systemd.syntax(7) read it.

    Specifiers (%) and variables ($) are doubled, so that a value arrives as it was given.
    """
    text = str(value)
    if "\n" in text or "\0" in text:
        raise ValueError(f"a unit file cannot hold a line break or NUL: {text!r}")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = text and all(c.isalnum() or c in "-_./:=,@+%$" for c in text)
    return text if plain else f'"{text}"'


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"systemd_quote": systemd_quote}
