"""Runbook sections of docs/runbooks.md as annotations, for recipients who cannot open the page."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.errors import AnsibleFilterError


def _paragraphs(alert: str, page: str) -> list[str]:
    """The paragraphs of the alert's section that say where to look and what to do."""
    section = re.search(rf"^## {re.escape(alert)}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if not section:
        raise AnsibleFilterError(f"docs/runbooks.md has no section {alert}. Fix: write one; its alert sends it along.")
    # What the alert means is in its summary already.
    return [text for text in re.split(r"\n{2,}", section[1].strip()) if not text.startswith("**Means.**")]


def runbook(alert: str, page: str, address: str = "", indent: int = 10) -> str:
    """The annotations `runbook` and, where there is an address of the page, `runbook_url`, as lines of a rule.

    A section that sends the reader to another alert's has the other one's paragraphs after its own.
    """
    paragraphs = _paragraphs(alert, page)
    for other in re.findall(r"\b[Aa]s for (\w+)", "\n".join(paragraphs)):
        paragraphs += [f"{other}:", *_paragraphs(other, page)]
    plain = "\n\n".join(re.sub(r"\*\*(.+?)\*\*", r"\1", text) for text in paragraphs)
    # Prometheus fills in what stands in double braces; nothing of a runbook is meant for it.
    text = json.dumps(plain.replace("{{", '{{ "{{" }}'), ensure_ascii=False)
    lines = [f"runbook: {text}"]
    if address:
        lines.append(f"runbook_url: {address}#{alert.lower()}")
    return ("\n" + " " * indent).join(lines)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        return {"runbook": runbook}
