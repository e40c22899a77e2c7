"""Asks a container registry, over its HTTP API, whether it answers and what a tag stands for."""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from email.message import Message
from functools import cache

from .manifest import Reference

_ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1",
        "docker.distribution.manifest.v2",
    )
)  # fmt: skip


class RegistryError(Exception):
    """The registry did not answer the question."""


class TagNotFoundError(Exception):
    """The registry answered that there is no such tag."""


def base_url(host: str) -> str:
    """Return the URL of the registry `host`; plain HTTP on this machine only, as Docker does."""
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    return f"{scheme}://{'registry-1.docker.io' if host == 'docker.io' else host}"


def _ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, Message, bytes]:
    """Return status, headers and body; raises OSError or ValueError when there is no answer."""
    request = urllib.request.Request(url, headers=dict(headers or {}), method=method)
    timeout = float(os.environ.get("VANTAGE_REGISTRY_TIMEOUT", "5"))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, b""


@cache
def is_reachable(host: str) -> bool:
    """Return whether a registry answers at `host`: 200, or 401 with where to get a token; asked once a run."""
    try:
        status, headers, _ = _ask(f"{base_url(host)}/v2/")
    except (OSError, ValueError):
        return False
    # A proxy that forbids access answers 403 or 407.
    return status == 200 or (status == 401 and "WWW-Authenticate" in headers)


def digest_of(reference: Reference) -> str:
    """Return the digest of the tag; raises TagNotFoundError (404) or RegistryError."""
    url = f"{base_url(reference.host)}/v2/{reference.path}/manifests/{reference.tag}"
    accept = {"Accept": _ACCEPT}
    try:
        status, headers, _ = _ask(url, "HEAD", accept)
        if status == 401:
            token = _token(headers.get("WWW-Authenticate", ""), reference)
            status, headers, _ = _ask(url, "HEAD", {**accept, "Authorization": f"Bearer {token}"})
    except (OSError, ValueError) as error:
        raise RegistryError(str(getattr(error, "reason", error))) from error
    if status == 404:
        raise TagNotFoundError(f"{reference.path}:{reference.tag}")
    if status != 200:
        raise RegistryError(f"HTTP {status}")
    if not (digest := headers.get("Docker-Content-Digest")):
        raise RegistryError("no digest in the answer")
    return digest


def _token(challenge: str, reference: Reference) -> str:
    """Return an anonymous token from where the registry's 401 says (the Bearer scheme)."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.get("realm", "")
    if not challenge.lower().startswith("bearer ") or not realm.startswith(("https://", "http://")):
        raise RegistryError("no anonymous access")
    query = {"scope": f"repository:{reference.path}:pull"} | {k: v for k, v in fields.items() if k == "service"}
    status, _, body = _ask(f"{realm}?{urllib.parse.urlencode(query)}")
    answer = json.loads(body) if status == 200 else {}
    if not (token := answer.get("token") or answer.get("access_token")):
        raise RegistryError(f"no token from {realm} (HTTP {status})")
    return str(token)
