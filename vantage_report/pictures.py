"""All pictures of a report, and which traces are worth one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vantage_report import plots, servicemap, waterfall
from vantage_report.analyse import Facts, spoken
from vantage_report.findings import Finding
from vantage_report.spans import Trace
from vantage_report.stats import median
from vantage_report.words import listed, seconds


@dataclass
class Picture:
    """A picture's file, what it shows, and a sentence on what to see in it."""

    file: str
    says: str
    text: str = ""
    trace: str = ""


def draw(facts: Facts, findings: list[Finding], folder: Path) -> dict[str, Picture]:
    """Write every picture that there is data for; name -> picture."""
    drawn = {name: Picture(f"{name}.png", says) for name, says in plots.draw_all(facts, findings, folder).items()}
    services = facts.apps
    for name, trace, text in chosen(facts):
        waterfall.draw(trace, services, folder / f"trace-{name}.png")
        says = f"Waterfall of a trace: {len(trace.spans)} spans, {seconds(trace.us / 1e6)}"
        drawn[f"trace-{name}"] = Picture(f"trace-{name}.png", says, text, trace.id)
    if servicemap.draw(facts, servicemap.calls(facts), folder / "services.png"):
        drawn["services"] = Picture("services.png", "Services and the calls between them")
    return drawn


def chosen(facts: Facts) -> list[tuple[str, Trace, str]]:
    """The slowest, a typical and a failing trace: (name, trace, why this one)."""
    found: list[tuple[str, Trace, str]] = []
    pool = {trace.id: trace for traces in facts.traces.values() for trace in traces if trace.whole}
    recent = {
        trace.id for trace in facts.sample("short") + facts.chosen("slow", "short") + facts.chosen("failed", "short")
    }
    of_now = [trace for trace in pool.values() if trace.id in recent] or list(pool.values())
    when = f"the last {spoken(facts.short)}" if recent & set(pool) else f"the last {spoken(facts.long)}"
    slowest = max(of_now, key=lambda trace: trace.us, default=None)
    if slowest is not None:
        found.append(
            (
                "slowest",
                slowest,
                f"The slowest of {len(of_now)} traces that were looked at from {when}. {_tells(slowest)}",
            )
        )
    typical = _typical([trace for trace in facts.sample("short") or facts.sample("base") if trace.whole])
    if typical is not None:
        found.append(("typical", *typical))
    failing = [trace for trace in of_now if trace.failed]
    when_failing = when
    if not failing:
        failing, when_failing = [trace for trace in pool.values() if trace.failed], f"the last {spoken(facts.long)}"
    if failing:
        # The failure that happens most, and of those the one that shows most.
        kinds = [_kind(trace) for trace in failing]
        usual = max(kinds, key=kinds.count)
        trace = max((t for t in failing if _kind(t) == usual), key=lambda t: (len(t.spans), t.spans[0].start))
        others = f"{kinds.count(usual)} of {len(failing)} failing traces that were looked at from {when_failing} fail the same way."
        found.append(("failing", trace, f"{_broken(trace)} {others}"))
    return found


def _typical(traces: list[Trace]) -> tuple[Trace, str] | None:
    """Of the operation that is asked for most, among those with a call in them, the trace of median length."""
    fine = [trace for trace in traces if not trace.failed]
    calling = [trace for trace in fine if len({span.service for span in trace.spans}) > 1] or fine
    if not calling:
        return None
    names = [(trace.root.service, trace.root.label) for trace in calling]
    usual = max(names, key=names.count)
    same = [trace for trace in calling if (trace.root.service, trace.root.label) == usual]
    middle = median(trace.us for trace in same)
    trace = min(same, key=lambda t: abs(t.us - middle))
    return trace, f"The median of {len(same)} sampled traces of {usual[1]}. {_tells(trace)}"


def _kind(trace: Trace) -> tuple[str, str, str]:
    span = trace.culprit
    return (span.service, span.label, span.tags.get("error.type", "")) if span else ("", "", "")


def _broken(trace: Trace) -> str:
    span = trace.culprit
    if span is None:
        return ""
    kind = span.tags.get("error.type", "")
    return f"It fails in {span.service}, in {span.label}{f', with {kind}' if kind else ''}."


def _tells(trace: Trace) -> str:
    """Where the time of one trace goes."""
    longest = sorted(trace.spans, key=lambda span: -span.self_us)[:2]
    parts = [f"{span.label} of {span.service} ({seconds(span.self_us / 1e6)})" for span in longest if span.self_us]
    return f"Most own time: {listed(parts)}." if parts else ""
