#!/usr/bin/env python3
"""Moves the journal cursor that Promtail saved back by some seconds: promtail_rewind.py POSITIONS_FILE SECONDS

Promtail saves what it has read, not what Loki acknowledged, so a killed Promtail would skip lines it never
delivered. Reading them again is harmless: Loki drops a line with equal time, labels and text.
The file holds one entry, `cursor-journal: "<journal cursor>"`, whose part t= is microseconds since 1970 in hex.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def cursor_at(microseconds: int) -> str:
    """The cursor of the first journal entry at or after the time, or an empty text."""
    options = ("--output=export", "--output-fields=__CURSOR", "--no-pager", f"--since=@{microseconds / 1e6:.6f}")
    with subprocess.Popen(["journalctl", *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as journal:
        assert journal.stdout is not None
        # Only the first entry is wanted; the rest of the journal may be gigabytes.
        found = next((line for line in journal.stdout if line.startswith(b"__CURSOR=")), b"")
        journal.kill()
    return found.removeprefix(b"__CURSOR=").decode().strip()


def main(path: Path, seconds: float) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return  # A first start has no position to move.
    saved = re.search(r"s=[0-9a-f]+;[^\"'\s]*?\bt=([0-9a-f]+)[^\"'\s]*", text)
    if saved is None:
        sys.exit(f"promtail_rewind: no journal cursor in {path}; Promtail continues from its position")
    earlier = cursor_at(int(saved[1], 16) - int(seconds * 1e6))
    if not earlier:
        sys.exit("promtail_rewind: no journal entry at that time; Promtail continues from its position")
    new = path.with_suffix(".rewound")
    new.write_text(text.replace(saved[0], earlier), encoding="utf-8")
    new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
