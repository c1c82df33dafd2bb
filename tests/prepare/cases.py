"""Events for the tests of preparation, and plain Python ways to the results that the transforms must give."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import NamedTuple

from pyspark.sql import functions as F

BASE = 1_320_000_000  # seconds since 1970: 2011-10-30 18:40 UTC
DDL = (
    "user_idx int, item_idx int, event_type string, us bigint, value double, quantity double, "
    "price double, log_session_id string, basket_id string, event_order bigint, event_type_idx int"
)


class Event(NamedTuple):
    """An interaction; ``second`` counts from BASE."""

    user: int | None
    item: int
    second: int
    kind: str = "view"
    value: float | None = None
    session: str | None = None
    basket: str | None = None
    order: int | None = None
    code: int | None = None  # of the type, where sessions are of several

    @property
    def us(self):
        return (BASE + self.second) * 1_000_000


def frame(spark, events):
    """The events in the columns of tables.INTERACTIONS."""
    rows = [(e.user, e.item, e.kind, e.us, e.value, 1.0, None, e.session, e.basket, e.order, e.code) for e in events]
    ts = F.timestamp_micros("us").alias("ts")
    wide = spark.createDataFrame(rows, DDL)
    columns = [ts if c == "us" else c for c in wide.columns]
    return wide.select(*columns)


def second(column):
    """A timestamp column as seconds from BASE."""
    return (F.unix_seconds(column) - BASE).alias(column)


def found_sessions(sessions):
    """Sessions by id: (user, start, end, items, times), times in seconds from BASE."""
    times = F.transform("event_ts", lambda t: F.unix_seconds(t) - BASE).alias("times")
    rows = sessions.select("session_id", "user_idx", second("start_ts"), second("end_ts"), "items", times).collect()
    assert len({r[0] for r in rows}) == len(rows), "session ids are not unique"
    return {r[0]: tuple(r[1:]) for r in rows}


def found_types(sessions):
    """The types of sessions' events by id."""
    return dict(sessions.select("session_id", "event_types").collect())


def found_baskets(baskets):
    """Baskets by id: (user, time, items, time of the last purchase)."""
    rows = baskets.select("basket_id", "user_idx", second("ts"), "items", second("end_ts")).collect()
    assert len({r[0] for r in rows}) == len(rows), "basket ids are not unique"
    return {r[0]: tuple(r[1:]) for r in rows}


def place(e):
    """What events are in order of: the time, the log's order (none first), the draw."""
    return e.second, -1 if e.order is None else e.order, drawn(e), e.item, -1 if e.user is None else e.user


def drawn(e):
    """The draw that orders events of one time: Spark's xxhash64 of the microseconds and the item."""
    h = _xxh64(e.item, 4, _xxh64(e.us, 8, 42))
    return h - (1 << 64) if h >> 63 else h


def _xxh64(value, size, seed):
    """XXH64 of an integer of 4 or 8 bytes (Collet, the xxHash specification)."""
    p1, p2, p3, p4, p5 = (
        0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
    )  # fmt: skip
    full = (1 << 64) - 1

    def turned(x, by):
        return ((x << by) | (x >> (64 - by))) & full

    h = (seed + p5 + size) & full
    if size == 8:
        h ^= turned((value & full) * p2 & full, 31) * p1 & full
        h = (turned(h, 27) * p1 + p4) & full
    else:
        h ^= (value & 0xFFFFFFFF) * p1 & full
        h = (turned(h, 23) * p2 + p3) & full
    h = (h ^ h >> 33) * p2 & full
    h = (h ^ h >> 29) * p3 & full
    return h ^ h >> 32


def groups(events, log_id):
    """Events by owner: {(log id or None, owner, whether the first owner): events in order}, and those of nobody."""
    of_log, of_owner, nobodys = defaultdict(list), defaultdict(list), 0
    for e in sorted(events, key=place):
        own = log_id and getattr(e, log_id)
        if own is not None:
            of_log[own].append(e)
        elif e.user is None:
            nobodys += 1
        else:
            of_owner[None, e.user, True].append(e)
    for own, members in of_log.items():
        named = [e.user for e in members if e.user is not None]
        current = first = named[0] if named else None
        for e in members:
            current = e.user if e.user is not None else current
            of_owner[own, current, current == first].append(e)
    return of_owner, nobodys


def name(own, owner, first, start, piece):
    """The id of a group."""
    if own is None:
        return f"{owner}-{start.us}#{piece}"
    if piece == 0 and first and "#" not in own:
        return own
    return f"{own}#p{piece}" + ("" if first else f"u{owner}")


def expected_sessions(events, config, kinds):
    """What ``sessions`` must give: sessions by id, the counts, and the types of their events by id."""
    events = [e for e in events if e.kind in kinds]
    of_owner, nobodys = groups(events, "session" if config.by == "session_id" else None)
    counts = Counter(events=len(events), anonymous=nobodys)
    result, types = {}, {}
    for (own, owner, first), members in of_owner.items():
        members = sorted(members, key=lambda e: (*place(e)[:-1], e.code or 0))
        cuts = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(members)) if own is None and _far(a, b, config))]
        for begin, end in zip(cuts, [*cuts[1:], len(members)], strict=True):
            visits = members[begin:end]
            kept = [e for i, e in enumerate(visits) if not _repeats(visits, i, config)]
            counts["repeats"] += len(visits) - len(kept)
            for piece, at in enumerate(range(0, len(kept), config.max_length)):
                part = kept[at : at + config.max_length]
                short = len(part) < config.min_length
                counts["short_sessions" if short else "sessions"] += 1
                counts["short_events" if short else "session_events"] += len(part)
                if not short:
                    times = [e.second for e in part]
                    row = (owner, times[0], times[-1], [e.item for e in part], times)
                    result[name(own, owner, first, visits[0], piece)] = row
                    types[name(own, owner, first, visits[0], piece)] = [e.code for e in part]
    return result, counts, types


def _far(a, b, config):
    return b.second - a.second > config.gap_minutes * 60


def _repeats(visits, i, config):
    return config.collapse_repeats and i > 0 and visits[i].item == visits[i - 1].item


def expected_baskets(events, config, kinds):
    """What ``copurchase`` must give: baskets by id, and the counts."""
    events = [e for e in events if e.kind in kinds]
    of_owner, nobodys = groups(events, "basket" if config.by == "basket_id" else None)
    counts = Counter(purchases=len(events), anonymous=nobodys)
    result = {}
    for (own, owner, first), members in of_owner.items():
        for basket in [members] if own is not None else _windows(members, config.window_hours * 3600):
            items = list(dict.fromkeys(e.item for e in basket))
            if len(items) < config.min_items:
                counts["small_baskets"] += 1
                counts["small_purchases"] += len(basket)
                continue
            kept = items[: config.max_items]
            bought = sum(e.item in kept for e in basket)
            counts["baskets"] += 1
            counts["basket_purchases"] += bought
            counts["cut_items"] += len(items) - len(kept)
            counts["cut_purchases"] += len(basket) - bought
            result[name(own, owner, first, basket[0], 0)] = (owner, basket[0].second, kept, basket[-1].second)
    return result, counts


def _windows(members, width):
    """Cuts a user's purchases: chains without a pause of ``width`` seconds, each cut every ``width`` seconds."""
    baskets, opened, until = [], None, None
    for before, e in zip([None, *members], members, strict=False):
        if before is None or e.second - before.second >= width:
            opened, until = e.second, e.second + width
            baskets.append([e])
        elif e.second >= until:
            until = opened + ((e.second - opened) // width + 1) * width
            baskets.append([e])
        else:
            baskets[-1].append(e)
    return baskets


def expected_support(events, min_item, min_user):
    """The events of the core, by removing one item or user at a time."""
    while True:
        items = Counter(e.item for e in events)
        users = Counter(e.user for e in events if e.user is not None)
        weak_item = next((i for i, n in items.items() if n < min_item), None)
        weak_user = next((u for u, n in users.items() if n < min_user), None)
        if weak_item is not None:
            events = [e for e in events if e.item != weak_item]
        elif weak_user is not None:
            events = [e for e in events if e.user != weak_user]
        else:
            return events
