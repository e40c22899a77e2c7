"""python -m vantage_report: from the engines, or from data that was collected before, to a folder with the report."""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from vantage_report.asking import over_http
from vantage_report.collect import Collector, NothingAnswers

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Seconds of 300, 300s, 5m, 6h; raises ValueError."""
    found = re.fullmatch(r"(\d+)([smhd]?)", text.strip())
    if not found or int(found[1]) == 0:
        raise ValueError(f"{text!r} is no length of time; write for example 90s, 5m or 6h")
    return int(found[1]) * UNITS[found[2] or "s"]


def windows(short: str, long: str) -> tuple[int, int]:
    """Both windows in seconds; raises ValueError with what is wrong."""
    one, other = duration(short), duration(long)
    if one < 30:
        raise ValueError(f"the short window is {short}: below 30 s hardly two scrapes fit in; give 1m or more")
    if other < 2 * one:
        raise ValueError(
            f"the long window, {long}, must be at least twice the short one, {short}: it is what that is compared with"
        )
    return one, other


def say(text: str) -> None:
    """A line of progress, seen at once also through a pipe."""
    print(f"report: {text}", flush=True)


def render(data: dict[str, Any], folder: Path) -> int:
    """Write the report; its number of findings."""
    begin = time.monotonic()
    say("drawing and writing …")
    # Here, because drawing needs libraries that collecting does without.
    from vantage_report.render import HTML, write

    findings = write(data, folder)
    pictures = len(list(folder.glob("*.png")))
    say(
        f"{pictures} pictures and {len(findings)} finding{'' if len(findings) == 1 else 's'}, {time.monotonic() - begin:.1f} s"
    )
    for finding in findings:
        say(f"  {finding.severity}: {finding.title}")
    say(f"written: {folder / HTML}")
    return len(findings)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vantage_report", description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--loki", default="http://127.0.0.1:3100")
    parser.add_argument("--jaeger", default="http://127.0.0.1:16686")
    parser.add_argument("--grafana", default="", help="address that people type, for links; without it there are none")
    parser.add_argument("--host", default="", help="name of the machine, for the title")
    parser.add_argument("--short", default="5m", help="the window that is looked at (default 5m)")
    parser.add_argument("--long", default="6h", help="the window it is compared with (default 6h)")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    parser.add_argument("--data", type=Path, help="take data that was collected before, and ask nobody")
    parser.add_argument("--keep-data", action="store_true", help="write data.json.gz beside the report, for --data")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """0, or 1 with what is wrong on stderr."""
    options = parse(argv)
    try:
        if options.data:
            packed = options.data.read_bytes()
            data = json.loads(gzip.decompress(packed) if packed[:2] == b"\x1f\x8b" else packed)
        else:
            short, long = windows(options.short, options.long)
            transport = over_http({name: getattr(options, name) for name in ("prometheus", "loki", "jaeger")})
            data = Collector(transport, short, long, say).run({"grafana": options.grafana, "host": options.host})
        options.out.mkdir(parents=True, exist_ok=True)
        if options.keep_data:
            (options.out / "data.json.gz").write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))
        render(data, options.out)
    except (NothingAnswers, OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
