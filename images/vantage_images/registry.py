"""Ask a container registry, over its HTTP API, whether it answers and what a tag stands for."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message

from .manifest import Reference

_ACCEPT = ", ".join([
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
])  # fmt: skip
# The name that stands in references, and the machine that serves it.
_HOSTS = {"docker.io": "registry-1.docker.io"}


class RegistryError(Exception):
    """The registry could not be asked, or said no; the text says which."""


def base_url(host: str) -> str:
    """Return the URL of the registry `host`; plain HTTP only on this machine, as Docker has it."""
    name = host.partition(":")[0]
    scheme = "http" if name in ("localhost", "127.0.0.1") else "https"
    return f"{scheme}://{_HOSTS.get(host, host)}"


def probe_seconds() -> float:
    """How long a registry may take to answer the first question."""
    return float(os.environ.get("VANTAGE_REGISTRY_TIMEOUT", "5"))


def answers(host: str, timeout: float | None = None) -> bool:
    """Return whether a registry speaks at `host`: 200, or 401, which asks for a token."""
    try:
        with urllib.request.urlopen(f"{base_url(host)}/v2/", timeout=timeout or probe_seconds()) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as error:
        # A proxy that forbids answers 403 or 407; a registry that wants a token says how to get it.
        return error.code == 401 and "WWW-Authenticate" in error.headers
    except (OSError, ValueError):
        return False


def digest_of(reference: Reference, timeout: float = 15) -> str:
    """Return the digest that the tag stands for; raises RegistryError with the registry's reason."""
    url = f"{base_url(reference.host)}/v2/{reference.path}/manifests/{reference.tag}"
    headers = {"Accept": _ACCEPT}
    try:
        try:
            found = _head(url, headers, timeout)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            token = _token(error.headers, reference, timeout)
            found = _head(url, {**headers, "Authorization": f"Bearer {token}"}, timeout)
    except urllib.error.HTTPError as error:
        reasons = {404: "no such tag", 401: "not allowed", 403: "not allowed", 429: "too many questions, try later"}
        raise RegistryError(f"{reasons.get(error.code, error.reason)} (HTTP {error.code})") from error
    except (OSError, ValueError) as error:
        raise RegistryError(str(getattr(error, "reason", error))) from error
    digest = found.get("Docker-Content-Digest")
    if not digest:
        raise RegistryError("the registry gave no digest")
    return digest


def _head(url: str, headers: dict[str, str], timeout: float) -> Message:
    request = urllib.request.Request(url, headers=headers, method="HEAD")
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        answer: Message = reply.headers
        return answer


def _token(headers: Message, reference: Reference, timeout: float) -> str:
    """Get an anonymous token from the place that the registry's 401 names (the Bearer scheme)."""
    challenge = headers.get("WWW-Authenticate", "")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    if not challenge.lower().startswith("bearer ") or "realm" not in fields:
        raise RegistryError("the registry wants a login that is not anonymous")
    query = {"scope": f"repository:{reference.path}:pull"}
    if "service" in fields:
        query["service"] = fields["service"]
    url = f"{fields['realm']}?{urllib.parse.urlencode(query)}"
    if not url.startswith(("https://", "http://")):
        raise RegistryError(f"the registry names a strange place to get a token: {fields['realm']}")
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        answer = json.load(reply)
    token = answer.get("token") or answer.get("access_token")
    if not token:
        raise RegistryError("the registry gave no token")
    return str(token)
