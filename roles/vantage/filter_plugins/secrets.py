"""Secret texts as the files in which a container finds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def secret_files(secrets: Mapping[str, Any], service: str, group: str) -> list[dict[str, Any]]:
    """Each secret as vantage_files takes it, readable by the container's group alone.

    container_service mounts the folder as /run/secrets. Raises AnsibleFilterError for a name that is none of a file.
    """
    for name in secrets:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", str(name)):
            raise AnsibleFilterError(
                f"The secret {str(name)!r} of {service} cannot be called so, as it names a file: "
                "letters, digits, dots, - and _ only, and no dot first."
            )
    return [
        {
            "path": f"/etc/vantage/secrets/{service}/{name}",
            "content": str(content),
            "mode": "0440",
            "group": group,
            "secret": True,
        }
        for name, content in secrets.items()
    ]


class FilterModule:
    """Filters of the role."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Their names in templates."""
        return {"secret_files": secret_files}
