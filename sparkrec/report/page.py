"""A report as one page of HTML, which needs nothing but itself: no script, no font, no request.

The page is made by Jinja2 from ``templates/``, a file for each section. Every text is escaped, and what cannot be
printed is shown as its escape code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sparkrec.report import figures
from sparkrec.report.data import RAW_CHARS
from sparkrec.report.facts import FAILED, HELD_BACK, PUBLISHED, Absent, Losses, MetricRow, Report, Stage
from sparkrec.report.texts import duration, moment, number, share, shortened, size, visible

_ATTEMPTS = 3  # run ids that are written out
_TONES = {PUBLISHED: "good", "done": "good", HELD_BACK: "warn", "held_back": "warn", FAILED: "bad"}
_HOLD_OUTS = {
    "holdout_users_with_taken": "Lists for users as they are published, judged on all that they took after the cutoff",
    "holdout_users": "Lists for users without what they had, judged on what else they took after the cutoff",
    "holdout_cold_users": "Of these, users who had taken few items before",
    "holdout_frequent_users": "Of these, the other users",
    "holdout_cold_items": "Of these, items that few users had taken before",
    "holdout_frequent_items": "Of these, the other items",
    "holdout_sessions_with_taken": "Next item in the sessions after the cutoff",
    "holdout_sessions": "Next item in the sessions after the cutoff, of those that are new to the user",
    "holdout_baskets_with_taken": "Next product in the baskets after the cutoff",
    "holdout_baskets": "Next product in the baskets after the cutoff, of those that are new to the user",
    "holdout_ratings": "Predicted ratings after the cutoff",
}
_JUDGED = {"sessions": "events", "baskets": "products", "ratings": "ratings"}  # others: users
_SPREAD = ("coverage", "gini")


class HoldOut(NamedTuple):
    """The metrics on one hold-out but for those of the lists' spread."""

    title: str
    names: list[str]
    judged: str  # what the models are judged on
    rows: list[MetricRow]


def page(report: Report) -> str:
    """The whole page.

    Args:
        report: What it says.
    """
    return _environment().get_template("page.html").render(report=report)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("sparkrec.report"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"ATTEMPTS": _ATTEMPTS, "PUBLISHED": PUBLISHED, "RAW_CHARS": RAW_CHARS, "SPREAD": _SPREAD}
    made.filters |= {
        one.__name__: one
        for one in (duration, moment, number, share, shortened, size, said, tone, percent, hold_outs, of_spread,
                    by_model, figures.calibration_chart,
                    figures.history_chart, figures.lengths_chart, figures.loss_chart, figures.part_name,
                    figures.spread_chart)
    }  # fmt: skip
    made.tests["absent"] = lambda part: isinstance(part, Absent)
    return made


def _shown(value: Any) -> Any:
    """What is written of a value, before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def tone(state: str, other: str = "warn") -> str:
    """The CSS class of how something ended; ``other``: where it is of no state that has one."""
    return _TONES.get(state, other)


def percent(value: float) -> str:
    """``10%``."""
    return f"{value:.0%}"


def said(stage: Stage) -> list[tuple[str, str]]:
    """A stage's message in lines, each with what it is about, if anything; of a message in JSON the counts by table."""
    again = f" (later attempts that skipped it: {stage.skipped_since})" if stage.skipped_since else ""
    try:
        counts = json.loads(stage.message)
    except ValueError:
        counts = None
    if not isinstance(counts, dict):
        return [("", text) for text in (stage.message + again).split("; ")]
    lines = [(name.replace("_", " "), _counts(value)) for name, value in counts.items() if value]
    return [*lines, ("", again)] if again else lines


def _counts(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    texts = {key.replace("_", " "): f"{v:,}" if isinstance(v, int) else str(v) for key, v in value.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())


def by_model(found: Sequence[Losses]) -> list[tuple[str, list[Losses]]]:
    """The losses of each model's parts."""
    models = dict.fromkeys(one.model for one in found)
    return [(model, [one for one in found if one.model == model]) for model in models]


def hold_outs(rows: Sequence[MetricRow]) -> list[HoldOut]:
    """The metrics by hold-out, those that have a title first."""
    present = dict.fromkeys(row.split for row in rows)
    found = []
    for split in [*(name for name in _HOLD_OUTS if name in present), *(n for n in present if n not in _HOLD_OUTS)]:
        mine = [row for row in rows if row.split == split]
        names = list(dict.fromkeys(name for row in mine for name, _ in row.values if name not in _SPREAD))
        found.append(HoldOut(_HOLD_OUTS.get(split, split), names, _JUDGED.get(split.split("_")[1], "users"), mine))
    return found


def of_spread(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """Those that say how the lists spread over the items."""
    return [row for row in rows if any(name in _SPREAD for name, _ in row.values)]
