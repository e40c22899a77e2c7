"""Ansible's default output, with the message of a failed task once: it is in the error, and again in the result."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from ansible.plugins.callback import default

DOCUMENTATION = """
    name: vantage
    type: stdout
    short_description: Ansible's default output, with the message of a failed task once
    description: Shows what the callback default does; with -v it changes nothing.
    extends_documentation_fragment: [default_callback, result_format_callback]
"""


class CallbackModule(default.CallbackModule):
    """See DOCUMENTATION."""

    CALLBACK_NAME = "vantage"

    def _handle_exception(self, result: MutableMapping[str, Any], use_stderr: bool = False) -> None:
        is_shown = bool(result.get("exception"))
        super()._handle_exception(result, use_stderr)
        if is_shown and not self._display.verbosity:
            result.pop("msg", None)
