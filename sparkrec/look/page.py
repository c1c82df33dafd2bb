"""What is printed of a look at a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sparkrec.look import proposal
from sparkrec.look.columns import share
from sparkrec.look.events import REASON
from sparkrec.look.sample import Kind
from sparkrec.look.seen import Seen, names_of
from sparkrec.look.times import PER_SECOND
from sparkrec.settings.formats import has_offset

ROLES = ("user", "item", "ts", "event_type", "value", "quantity", "price", "session", "basket", "text")
SIGNS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", "::": "double colons", " ": "blanks"}


def page(seen: Seen) -> Iterator[str]:
    """The lines: the files, the columns, three events, and what a person should know or decide."""
    yield from (_files(kind) for kind in seen.kinds)
    for line in seen.aside:
        yield f"left aside: {line}"
    yield f"format: {seen.shipped}, as shipped" if seen.shipped else "format: made for this log"
    yield ""
    yield from _columns(seen)
    yield ""
    yield from _events(seen)
    yield ""
    yield from _remarks(seen)
    models = ", ".join(proposal.models_for(seen.facts, seen.fmt, seen.whole)) or "none: nobody took two items"
    yield f"models: {models}; {_days(proposal.holdout_days(seen.facts))} held out"


def _days(n: int) -> str:
    return f"{n} day" if n == 1 else f"{n} days"


def _files(kind: Kind) -> str:
    packed = sorted({file.compression for file in kind.files if file.compression})
    encoding = [kind.encoding] if kind.reader in ("csv", "jsonl") else []
    how = [kind.reader if kind.dialect is None else _dialect(kind), *encoding, *packed]
    n = len(kind.files)
    size = _bytes(sum(file.size for file in kind.files))
    return f"{names_of(kind)}: {n} {'file' if n == 1 else 'files'}, {size}, {', '.join(how)}"


def _columns(seen: Seen) -> Iterator[str]:
    for role in ROLES:
        declared = getattr(seen.fmt, role)
        if declared is None:
            continue
        there = [name for name in declared.columns if name in seen.columns]
        if role == "event_type":
            yield f"  {role:<11}{', '.join(there) or 'no column'}: {_types(seen)}"
        else:
            yield f"  {role:<11}{', '.join(there or declared.columns)}{_unit(declared) if role == 'ts' else ''}"
    for name in ("item_attributes", "user_attributes"):
        if found := getattr(seen.fmt, name):
            yield f"  {name.replace('_', ' ')}: {', '.join(a.name for a in found)}"
    for join in seen.joins:
        yield f"  join: {names_of(join.kind)}, by {join.key}: it has {', '.join(join.gives)}"
    for name, beside in (("items", seen.items), ("users", seen.users)):
        if beside is not None:
            yield f"  {name}: {names_of(beside.kind)}, by {beside.id}"


def _types(seen: Seen) -> str:
    types = seen.facts.types
    total = max(1, sum(types.values()))
    said = [(name, n / total, seen.fmt.event_weights.get(name, 0.0)) for name, n in list(types.items())[:8]]
    return ", ".join(f"{name} {part:.1%} (weight {weight:g})" for name, part, weight in said)


def _unit(declared: Any) -> str:
    units = ", ".join(declared.unit)
    plus = "".join(f" + {', '.join(part.columns)} in {part.unit}" for part in declared.plus)
    return f" ({units}{plus})"


def _events(seen: Seen) -> Iterator[str]:
    good = seen.judged.filter(seen.judged[REASON].is_null())
    names = [n for n in good.columns if n != REASON and good[n].null_count() < good.height]
    rows = [[str(value)[:40] for value in row] for row in good.select(names).head(3).iter_rows()]
    widths = [max(len(text) for text in column) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _remarks(seen: Seen) -> Iterator[str]:
    facts, fmt = seen.facts, seen.fmt
    whole = seen.whole
    n = facts.n - sum(facts.refused.values())
    yield f"{n:,} events, {facts.users:,} users, {facts.items:,} items, {facts.first} to {facts.last}"
    if not whole:
        read = max(1, sum(kind.rows.height for kind in seen.kinds))
        about = sum(kind.n_rows for kind in seen.kinds) * facts.n // read
        yield f"a sample of {facts.n:,} rows; all files hold about {about:,}"
    for reason, refused in list(facts.refused.items())[:5]:
        yield f"refused: {reason}: {refused:,} rows ({refused / facts.n:.1%})"
    if facts.duplicates:
        yield f"equal rows: {facts.duplicates:,} ({facts.duplicates / facts.n:.1%}); duplicates: {fmt.equal_rows}"
    if facts.anonymous > 0.001:
        yield f"without a user: {facts.anonymous:.1%} of the events"
    again = "yes" if fmt.recommend_seen else "no"
    yield f"taken again by the same user: {facts.repeats:.1%} of the events; recommended again: {again}"
    sessions, more = "by their id" if fmt.session else "by gaps of half an hour", "" if whole else " or more"
    yield f"sessions ({sessions}): {facts.session_length:.1f} events{more}"
    if facts.basket_items:
        baskets = "by their id" if fmt.basket else "a day each"
        yield f"baskets ({baskets}): {facts.basket_items:.1f} items, {facts.multi_baskets:.0%} with two or more"
    for what, found in {"sessions": facts.session_recalls, "baskets": facts.basket_recalls}.items():
        if found:
            by = f"{found.together:.3f} of pairs that stood together, {found.popular:.3f} of what is popular"
            yield f"the next of {what}, recall@20: {by}"
    if facts.ratings and fmt.value:
        low, high, different = facts.ratings
        yield f"value: {low:g} to {high:g}, {different} different"
    for user, part in facts.crawlers.items():
        yield f"a crawler? user {user} has {part:.1%} of the events"
    if facts.midnight > 0.95:
        yield "times are days: what a user took on one day has no order"
    elif fmt.timezone == "UTC" and _is_local(seen):
        yield "times without a zone are read as UTC; timezone: Europe/London (say) tells another"
    if not seen.shipped:
        yield from (f"unsure: {doubt}" for doubt in seen.roles.doubts)


def _is_local(seen: Seen) -> bool:
    """Whether times are texts that name no zone."""
    unit = seen.fmt.ts.unit[0]
    if unit in PER_SECOND or has_offset(unit):
        return False
    rows = seen.kinds[0].rows
    name = next((name for name in seen.fmt.ts.columns if name in rows.columns), None)
    return name is None or share(rows[name].str.contains(r"(Z|UTC|[+-]\d{2}:?\d{2})$")) < 0.5


def _dialect(kind: Kind) -> str:
    if kind.dialect is None:
        return kind.reader
    return f"text with {SIGNS[kind.dialect.separator]}{'' if kind.dialect.header else ', without a header'}"


def _bytes(n: float) -> str:
    for unit in ("bytes", "KB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit != "MB" else f"{n:.1f} MB"
        n /= 1000
    return f"{n:.1f} GB"
