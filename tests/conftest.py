"""Makes the programs that roles install on a host importable as modules."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in sorted(Path(__file__).resolve().parents[1].glob("roles/*/files")):
    sys.path.append(str(folder))
