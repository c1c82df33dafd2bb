"""The sections of the page, each a pure function from facts to markup."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sparkrec.report.charts import Series, bar, binned, columns, lines
from sparkrec.report.data import RAW_CHARS
from sparkrec.report.facts import (
    HELD_BACK,
    PUBLISHED,
    Absent,
    Head,
    History,
    Ingest,
    Lengths,
    Listed,
    Losses,
    MetricRow,
    Model,
    Reason,
    Sample,
    Spread,
    Stage,
    TableSize,
    UserLists,
)
from sparkrec.report.markup import Child, Markup, duration, element, join, number, share, shortened, size

_TONES = {PUBLISHED: "good", HELD_BACK: "warn", "done": "good", "held_back": "warn", "failed": "bad"}
_SPLITS = {
    "holdout_users_with_taken": "Lists for users as they are published, judged on all that they took after the cutoff",
    "holdout_users": "Lists for users without what they had, judged on what else they took after the cutoff",
    "holdout_cold_users": "Of these, users who had taken few items before",
    "holdout_frequent_users": "Of these, the other users",
    "holdout_cold_items": "Of these, items that few users had taken before",
    "holdout_frequent_items": "Of these, the other items",
    "holdout_sessions": "Next item in the sessions after the cutoff",
    "holdout_baskets": "Next product in the baskets after the cutoff",
    "holdout_ratings": "Predicted ratings after the cutoff",
}
_JUDGED = {"holdout_sessions": "events", "holdout_baskets": "products", "holdout_ratings": "ratings"}  # others: users
_SPREAD = ("coverage", "gini")


def absent(part: Absent) -> Markup:
    """Says why something is not there."""
    return element("p", part.why, class_="absent")


def note(*text: Child) -> Markup:
    """An explanation in small print."""
    return element("p", *text, class_="note")


def table(heads: Sequence[str], rows: Sequence[Sequence[Child]], kinds: Sequence[str]) -> Markup:
    """A table.

    Args:
        heads: Of the columns.
        rows: Texts are escaped, markup is taken as it is.
        kinds: A CSS class for each column: ``n`` for numbers; empty for none.
    """
    top = [element("th", head, class_=kind or None, scope="col") for head, kind in zip(heads, kinds, strict=True)]
    body = [
        element("tr", [element("td", cell, class_=kind or None) for cell, kind in zip(row, kinds, strict=True)])
        for row in rows
    ]
    whole = element("table", element("thead", element("tr", top)), element("tbody", body))
    return element("div", whole, class_="scroll")


def models(head: Head, histories: Sequence[History] | Absent) -> Markup:
    """What became of each model, and its metric over the nights with the gate's lines."""
    rows = [_model_row(model) for model in head.models]
    parts: list[Markup] = [
        table(["model", "this night", "version", "lists that are current now", ""], rows,
              ["name", "name", "", "", "wide"])
    ]  # fmt: skip
    if isinstance(histories, Absent):
        return join(*parts, absent(histories))
    return join(*parts, _gate_note(histories), element("div", [_history(one) for one in histories], class_="grid2"))


def _model_row(model: Model) -> tuple[Child, ...]:
    state = element("b", model.state, class_=_TONES.get(model.state, "bad"))
    version = element("code", model.version) if model.version else "–"
    current = f"of {model.current}" if model.current else "none"
    return model.name, state, version, current, model.why


def _gate_note(histories: Sequence[History]) -> Markup:
    if not histories:
        return note("No model was to be trained.")
    one = histories[0]
    if not one.gated:
        return note("The gate was off: every model was published. The lines show where its margins would lie.")
    return note(
        f"The gate holds a model back when {one.metric} is more than {one.below_popularity:.0%} below recent "
        f"popularity's, or more than {one.below_last:.0%} below that of the model published before, both by itself and "
        "as a multiple of popularity's. A hollow dot is a night without publication. The margins are those of this "
        "night."
    )


def _history(history: History) -> Markup:
    title = element("h3", history.model)
    known = [night for night in history.nights if night.value is not None]
    if not known:
        return element("div", title, absent(Absent(f"{history.metric} of {history.model} has not been measured.")))
    nights = history.nights
    hollow = tuple(n for n, night in enumerate(nights) if not night.published)
    keep = [1 - history.below_popularity, 1 - history.below_last]
    series = [
        Series(history.model, "line1", tuple(n.value for n in nights), hollow),
        Series("recent popularity", "line3", tuple(n.popularity for n in nights)),
        Series("lowest by popularity", "floor1", tuple(_times(n.popularity, keep[0]) for n in nights), dots=False),
        Series("lowest by the last model", "floor2", tuple(_times(n.last, keep[1]) for n in nights), dots=False),
    ]
    first = [] if any(n.last is not None for n in nights) else [note("No model was published before this one.")]
    series = [s for s in series if any(v is not None for v in s.values)]
    labels = [f"{night.run_date:%m-%d}" for night in nights]
    return element(
        "div", title, lines(series, labels, "night", history.metric, 4, from_zero=True), first, class_="part"
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def stages(found: Sequence[Stage]) -> Markup:
    """Rows in and out and the time of each stage."""
    longest = max((stage.seconds for stage in found), default=0.0)
    rows = [
        (
            stage.name,
            element("span", stage.status.replace("_", " "), class_=_TONES.get(stage.status, "soft")),
            number(stage.rows_in),
            number(stage.rows_out),
            number(stage.jobs),
            duration(stage.seconds),
            bar(stage.seconds, longest, "fillbad" if stage.status == "failed" else "fill1"),
        )
        for stage in found
    ]
    heads = ["stage", "status", "rows in", "rows out", "jobs", "time", ""]
    said = [join(element("dt", stage.name), element("dd", _said(stage))) for stage in found]
    skipped = any(stage.skipped_since for stage in found)
    again = note("A stage that a later attempt skipped is shown as it last ran.") if skipped else None
    numbers = table(heads, rows, ["name", "name", "n", "n", "n", "n", "bars"])
    return join(numbers, again, element("h3", "What they said"), element("dl", said, class_="facts"))


def _said(stage: Stage) -> Markup:
    settings = element("div", "settings ", element("code", stage.config_hash), class_="note")
    return join(element("div", _message(stage), class_="said"), settings)


def _message(stage: Stage) -> Child:
    """A stage's message; where it is JSON, counts by table."""
    again = f" (later attempts that skipped it: {stage.skipped_since})" if stage.skipped_since else ""
    try:
        counts = json.loads(stage.message)
    except ValueError:
        return [element("div", text) for text in (stage.message + again).split("; ")]
    if not isinstance(counts, dict):
        return stage.message + again
    lists = [
        element("div", element("b", name.replace("_", " ")), ": ", _counts(value))
        for name, value in counts.items()
        if value
    ]
    return join(lists, again)


def _counts(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)
    texts = {key.replace("_", " "): f"{v:,}" if isinstance(v, int) else str(v) for key, v in value.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())


def ingest(found: Ingest, quarantine: Sequence[Reason] | Absent) -> Markup:
    """The accounts of the rows read, and those refused with samples."""
    fits = found.read == found.kept + found.quarantined + found.duplicates
    rows = [
        ("read", number(found.read), share(found.read, found.read), bar(found.read, found.read, "fill3")),
        ("kept", number(found.kept), share(found.kept, found.read), bar(found.kept, found.read, "fill1")),
        ("quarantined", number(found.quarantined), share(found.quarantined, found.read),
         bar(found.quarantined, found.read, "fillbad")),
        ("exact duplicates", number(found.duplicates), share(found.duplicates, found.read),
         bar(found.duplicates, found.read, "fill2")),
    ]  # fmt: skip
    parts = [(found.kept, "kept"), (found.quarantined, "quarantined"), (found.duplicates, "exact duplicates")]
    sums = " + ".join(f"{number(n)} {what}" for n, what in parts)
    account = (
        element("p", f"{number(found.read)} read = {sums}.")
        if fits
        else element("p", f"The accounts do not fit: {number(found.read)} read, but {sums}.", class_="bad")
    )
    accounts = table(["rows", "number", "share", ""], rows, ["name", "n", "n", "bars"])
    return join(account, accounts, element("h3", "Refused rows"), _quarantine(quarantine))


def _quarantine(found: Sequence[Reason] | Absent) -> Markup:
    if isinstance(found, Absent):
        return absent(found)
    if not found:
        return absent(Absent("No row was refused this night."))
    most = max(reason.rows for reason in found)
    rows = [(reason.reason, number(reason.rows), bar(reason.rows, most, "fillbad")) for reason in found]
    samples = [
        element("div", element("h4", reason.reason), [_sample(one) for one in reason.samples], class_="part")
        for reason in found
    ]
    return join(table(["reason", "rows", ""], rows, ["", "n", "bars"]), element("h3", "Some of them"), samples)


def _sample(sample: Sample) -> Markup:
    return join(element("pre", shortened(sample.raw, RAW_CHARS)), note("in ", shortened(sample.source, 120)))


def lengths(sessions: Lengths | Absent, baskets: Lengths | Absent) -> Markup:
    """Sessions and baskets: how many, and how long."""
    parts = [
        element("div", element("h3", title), _lengths(found, what, of), class_="part")
        for title, found, what, of in [
            ("Sessions", sessions, "sessions", "events in a session"),
            ("Baskets", baskets, "baskets", "items in a basket"),
        ]
    ]
    return element("div", parts, class_="grid2")


def _lengths(found: Lengths | Absent, what: str, of: str) -> Markup:
    if isinstance(found, Absent):
        return absent(found)
    if not found.total:
        return absent(Absent(f"There are no {what}."))
    bins = binned(found.counts)
    series = [Series(what, "fill1", tuple(float(n) for _, n in bins))]
    says = (
        f"{number(found.total)} {what} with {number(found.items)} items, of {number(found.users)} users; "
        f"{number(found.anonymous)} anonymous ({share(found.anonymous, found.total)}). Length: mean "
        f"{found.items / found.total:.1f}, median {found.quantile(0.5)}, 90 % at most {found.quantile(0.9)}, "
        f"longest {found.counts[-1][0]}."
    )
    return join(element("p", says), columns(series, [label for label, _ in bins], of, what, 0))


def losses(found: Sequence[Losses | Absent]) -> Markup:
    """The loss of each epoch."""
    curves: dict[str, list[Losses]] = {}
    for one in found:
        if isinstance(one, Losses):
            curves.setdefault(one.model, []).append(one)
    charts = [_loss_chart(model, parts) for model, parts in curves.items()]
    rest = [absent(one) for one in found if isinstance(one, Absent)]
    if not found:
        rest = [absent(Absent("No model was to be trained."))]
    return join(element("div", charts, class_="grid2") if charts else None, rest)


def _loss_chart(model: str, parts: Sequence[Losses]) -> Markup:
    longest = max(len(part.by_epoch) for part in parts)
    if not longest:
        return element("div", element("h3", model), absent(Absent("Its losses were not recorded.")))
    series = [
        Series(_part_name(part.part), f"line{n}", part.by_epoch + (None,) * (longest - len(part.by_epoch)))
        for n, part in enumerate(parts, 1)
    ]
    took = ", ".join(f"{_part_name(part.part)} {duration(part.seconds)}" for part in parts)
    last = ", ".join(f"{_part_name(part.part)} {part.by_epoch[-1]:.4f}" for part in parts if part.by_epoch)
    labels = [str(n) for n in range(1, longest + 1)]
    chart = lines(series, labels, "epoch", "loss", 4)
    return element("div", element("h3", model), chart, note(f"Last loss: {last}. Time: {took}."), class_="part")


def _part_name(part: str) -> str:
    return {"holdout": "hold-out model", "full": "published model"}.get(part, part)


def metrics(found: Sequence[MetricRow]) -> Markup:
    """All hold-out metrics but those of the lists' spread, a table for each hold-out."""
    parts = []
    present = dict.fromkeys(row.split for row in found)
    for split in [*(name for name in _SPLITS if name in present), *(name for name in present if name not in _SPLITS)]:
        rows = [row for row in found if row.split == split]
        names = list(dict.fromkeys(name for row in rows for name, _ in row.values if name not in _SPREAD))
        parts += [element("h3", _SPLITS.get(split, split)), _metric_table(rows, names, _JUDGED.get(split, "users"))]
    return join(*parts)


def _metric_table(rows: Sequence[MetricRow], names: Sequence[str], judged: str) -> Markup:
    heads = ["model", "list length", judged, *[name.replace("_", " ") for name in names]]
    cells = [(row.model, number(row.k), number(row.n), *_cells(row, names)) for row in rows]
    return table(heads, cells, ["name", *["n"] * (len(heads) - 1)])


def _cells(row: MetricRow, names: Sequence[str]) -> list[str]:
    values = dict(row.values)
    return [number(values.get(name), 0 if name.startswith("users_") else 4) for name in names]


def spreads(found: Sequence[Spread | Absent], rows: Sequence[MetricRow] | Absent) -> Markup:
    """How the lists spread over the items."""
    parts: list[Markup] = []
    measured = [] if isinstance(rows, Absent) else [r for r in rows if any(name in _SPREAD for name, _ in r.values)]
    if measured:
        parts += [
            note("On the hold-out. Coverage: the share of the items that is in some list. Gini: 0 where all items are "
                 "listed equally often, near 1 where few items fill the lists."),
            _metric_table(measured, _SPREAD, "users"),
        ]  # fmt: skip
    else:
        parts.append(absent(Absent("Coverage and Gini were not measured this night.")))
    charts = [_spread(one) for one in found if isinstance(one, Spread)]
    if charts:
        says = "The published lists: the items in ten equal groups, from the tenth with the most events to the least."
        parts += [note(says), element("div", charts, class_="grid2")]
    return join(*parts, *[absent(one) for one in found if isinstance(one, Absent)])


def _spread(spread: Spread) -> Markup:
    labels = [str(n) for n in range(1, len(spread.by_decile) + 1)]
    series = [
        Series("events", "fill3", tuple(100 * v for v in spread.events)),
        Series(f"lists of {spread.model}", "fill1", tuple(100 * v for v in spread.by_decile)),
    ]
    chart = columns(series, labels, "tenth of the items by popularity", "share, %", 1)
    listed = share(spread.listed, spread.items)
    says = f"{number(spread.listed)} of {number(spread.items)} items are in some list ({listed})."
    return element("div", element("h3", spread.model), chart, note(says), class_="part")


def users(found: Sequence[UserLists]) -> Markup:
    """The lists of some users, side by side."""
    if not found:
        return absent(Absent("No user has a list of this night."))
    return join(*[_user(one) for one in found])


def _user(user: UserLists) -> Markup:
    who = "Session " if user.is_session else "User "
    last = note("Before: ", ", ".join(user.recent), ".") if user.recent else None
    lists = [
        element("div", note(model), element("ol", [_place(p) for p in places], class_="list") if places
                else absent(Absent("no list")))
        for model, places in user.lists
    ]  # fmt: skip
    return element("div", element("h3", who, element("bdi", shortened(user.key, 120))), last,
                   element("div", lists, class_="users"), class_="part")  # fmt: skip


def _place(place: Listed) -> Markup:
    name = element("bdi", shortened(place.title or place.item_id, 100))
    beside = f" {place.item_id}" if place.title else ""
    return element("li", name, element("span", f"{shortened(beside, 40)} · {place.score:.3f}", class_="note"))


def tables(found: Sequence[TableSize]) -> Markup:
    """The tables' sizes."""
    rows = [
        (t.name, number(t.rows), number(t.files), size(t.n_bytes), size(t.n_bytes / t.files) if t.files else "–",
         str(t.version), t.comment)
        for t in found
    ]  # fmt: skip
    total = f"{number(sum(t.files for t in found))} files, {size(sum(t.n_bytes for t in found))}. As they are now."
    heads = ["table", "rows", "files", "size", "per file", "version", "holds"]
    return join(note(total), table(heads, rows, ["name", "n", "n", "n", "n", "n", "wide"]))
