"""A report as one page of HTML, which needs nothing but itself: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sparkrec.report import sections
from sparkrec.report.facts import FAILED, HELD_BACK, PUBLISHED, Absent, Head, Lengths, Report
from sparkrec.report.markup import Markup, duration, element, join, number, share
from sparkrec.report.style import STYLE

T = TypeVar("T")
# Raw rows and ids are strangers' texts: they are escaped, and even markup could load and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ATTEMPTS = 3  # run ids that are written out


def page(report: Report) -> str:
    """The whole page.

    Args:
        report: What it says.
    """
    parts = [
        ("Models", sections.models(report.head, report.histories)),
        ("Stages", sections.stages(report.stages)),
        ("Ingest", _or_why(report.ingest, lambda found: sections.ingest(found, report.quarantine))),
        ("Sessions and baskets", sections.lengths(report.sessions, report.baskets)),
        ("Training", sections.losses(report.losses)),
        ("Metrics of this night", _or_why(report.metrics, sections.metrics)),
        ("Coverage and popularity", sections.spreads(report.spreads, report.metrics)),
        ("Lists of a few users", _or_why(report.users, sections.users)),
        ("Tables", _or_why(report.tables, sections.tables)),
    ]
    body = [element("section", element("h2", title), content) for title, content in parts]
    title = f"Night of {report.head.run_date}"
    top = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} – sparkrec"),
        element("style", Markup(STYLE)),
    )
    foot = element("footer", f"Written {moment(report.written_at)} by sparkrec report. All times are UTC.")
    main = element("main", _head(report.head, title), _tiles(report), body, foot)
    return f"<!DOCTYPE html>\n{element('html', top, element('body', main), lang='en')}\n"


def moment(when: datetime) -> str:
    """``2024-01-02 03:04:05``."""
    return when.strftime("%Y-%m-%d %H:%M:%S")


def _head(head: Head, title: str) -> Markup:
    tone = {PUBLISHED: "good", HELD_BACK: "warn", FAILED: "bad"}.get(head.state, "warn")
    shown, earlier = head.run_ids[-_ATTEMPTS:], len(head.run_ids) - _ATTEMPTS
    ids = [element("code", run_id) for run_id in shown]
    attempts = join(Markup(", ".join(ids)), f" and {earlier} earlier ones" if earlier > 0 else "")
    took = f"{moment(head.started_at)} to {moment(head.ended_at)}; stages {duration(head.seconds)} in all"
    facts = [
        ("Run", attempts), ("Time", took), ("Settings", element("code", head.config_hash)),
        ("Code", element("code", head.code_version)),
    ]  # fmt: skip
    return element(
        "header",
        element("h1", title, element("span", head.state, class_=f"state {tone}")),
        element("p", f"{head.why}.", class_=tone) if head.why else None,
        element("dl", [join(element("dt", name), element("dd", text)) for name, text in facts], class_="facts"),
    )


def _tiles(report: Report) -> Markup:
    tiles = []
    if not isinstance(report.ingest, Absent):
        tiles.append((number(report.ingest.read), "rows read"))
        tiles.append((share(report.ingest.quarantined, report.ingest.read), "of them quarantined"))
    for name, lengths in (("sessions", report.sessions), ("baskets", report.baskets)):
        if isinstance(lengths, Lengths):
            tiles.append((number(lengths.total), name))
    n_published = sum(model.state == PUBLISHED for model in report.head.models)
    tiles.append((f"{n_published} of {len(report.head.models)}", "models published"))
    tiles.append((duration(report.head.seconds), "in all stages"))
    return element("div", [element("div", element("b", a), element("span", b), class_="tile") for a, b in tiles],
                   class_="tiles")  # fmt: skip


def _or_why(part: T | Absent, section: Callable[[T], Markup]) -> Markup:
    return sections.absent(part) if isinstance(part, Absent) else section(part)
