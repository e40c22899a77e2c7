"""Questions to the engines, and the ways to bring them there.

A transport takes questions and returns their answers in the same order. `make report` asks on the host, through the module
`vantage_ask`; `over_http` asks from here, for engines that can be reached.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

MODULE = Path(__file__).resolve().parents[1] / "roles/report/library/vantage_ask.py"


@dataclass(frozen=True)
class Question:
    """What to ask one engine: `name` is what the answer is called in the data."""

    name: str
    engine: str
    path: str
    parameters: tuple[tuple[str, str], ...] = ()

    def url(self, addresses: dict[str, str]) -> str:
        """The address of the answer."""
        query = urlencode(self.parameters)
        return addresses[self.engine].rstrip("/") + self.path + (f"?{query}" if query else "")


# `body`, the JSON that was answered, or `error`, why there is none; and `seconds`.
Answer = dict[str, Any]
Transport = Callable[[Sequence[Question]], list[Answer]]


def over_http(addresses: dict[str, str], timeout: float = 20, parallel: int = 4) -> Transport:
    """Asks from this machine. The asking itself is the module's, which is loaded from its file."""
    spec = importlib.util.spec_from_file_location("vantage_ask", MODULE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def transport(questions: Sequence[Question]) -> list[Answer]:
        return list(module.ask_all([question.url(addresses) for question in questions], timeout, parallel))

    return transport
