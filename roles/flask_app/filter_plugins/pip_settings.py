"""The controller's pip settings, which hold on the host too."""

from __future__ import annotations

import ast
from typing import Any

# The controller's pip settings that hold on the host too: where packages come from, not where they are stored.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries", "cert")


def pip_settings(listed: str) -> dict[str, str]:
    """PIP_SETTINGS from the output of `pip config list`; environment variables come before files, as in pip."""
    found: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.strip().rpartition(".")
        if name in PIP_SETTINGS and section in {"global", "install", ":env:"}:
            text = str(ast.literal_eval(value)) if value[:1] in "'\"" else value
            if section == ":env:" or name not in found:
                found[name] = " ".join(text.split())
    return found


def pip_config(settings: dict[str, str]) -> str:
    """A pip.conf with the settings; certificates are mounted at /run/pip."""
    mounted = {"cert": "/run/pip/ca.pem"} if "cert" in settings else {}
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in (settings | mounted).items()), ""])


def pip_arguments(settings: dict[str, str]) -> dict[str, str]:
    """The settings as build arguments, which pip reads from its environment; without paths of the controller."""
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items() if name != "cert"}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"pip_arguments": pip_arguments, "pip_config": pip_config, "pip_settings": pip_settings}
