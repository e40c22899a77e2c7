"""Where the checkout, its parts and the cache are. Each path is defined here once."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
ROLES = ROOT / "roles"


def cache_dir() -> Path:
    """Return the folder for images, boxes and toolchains: VANTAGE_CACHE or the user's cache folder."""
    if given := os.environ.get("VANTAGE_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vantage"
