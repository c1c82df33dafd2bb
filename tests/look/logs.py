"""Invented logs in the shapes that shops and public sets have; small, and the same each time."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)


def clicks(n=600, n_users=40, n_items=60, seed=1):
    """Users, items and times in order of time, in bursts as sessions are."""
    draw, now, found = random.Random(seed), BEGIN, []
    while len(found) < n:
        user, begin = draw.randrange(n_users), now
        for _ in range(draw.randrange(2, 6)):
            item = min(int(draw.expovariate(0.06)), n_items - 1)
            begin += timedelta(seconds=draw.randrange(20, 200))
            found.append((user, item, begin))
        now += timedelta(minutes=draw.randrange(30, 300))
    return sorted(found[:n], key=lambda row: row[2])


def ago(at, pattern):
    return at.strftime(pattern)


def write(path: Path, text: str, encoding="utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.name.removesuffix(".zip"), data)
    elif path.suffix == ".zst":
        import pyarrow as pa

        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write(data)
    else:
        path.write_bytes(pack(data) if pack else data)
    return path


def lines(rows, header="", separator=","):
    body = "".join(separator.join(str(v) for v in row) + "\n" for row in rows)
    return (header + "\n" if header else "") + body


def shop_german(folder, encoding="windows-1252", ending="csv"):
    """A shop's export: semicolons, decimal commas, days first, umlauts, orders of several lines."""
    rows, order = [], 70000
    for i, (user, item, at) in enumerate(clicks()):
        order += i % 3 == 0
        price = f"{(item % 9) * 3 + 1},{item % 90:02d}"
        rows.append((order, f"K{user:04d}", f"A-{item:03d}", f"Überwurf Größe {item % 5}", 1 + item % 3, price,
                     ago(at, "%d.%m.%Y %H:%M")))  # fmt: skip
    header = "Bestellnummer;Kundennummer;Artikelnummer;Bezeichnung;Menge;Einzelpreis;Bestelldatum"
    return write(folder / f"export.{ending}", lines(rows, header, ";"), encoding)


def events_typed(folder):
    """A shop's clickstream with types and sessions, times with UTC behind them."""
    names = ("view", "cart", "purchase", "remove_from_cart")
    rows = [
        (ago(at, "%Y-%m-%d %H:%M:%S UTC"), names[(i * 7 % 10) // 6 + (i % 10 == 0) * 2], 1000000 + item,
         2053013 + item % 7, ["samsung", "apple", ""][item % 3], f"{item}.99", 51200000 + user, f"s-{user}-{at:%d%H}")
        for i, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    header = "event_time,event_type,product_id,category_id,brand,price,user_id,user_session"
    return write(folder / "2024-Mar.csv", lines(rows, header))


def headerless(folder):
    """User, item, category, behaviour and time without a header."""
    names = ("pv", "pv", "pv", "cart", "fav", "buy")
    by_user = sorted(clicks(), key=lambda row: row[0])
    rows = [
        (user + 1, 5000 + item, 900 + item % 7, names[i % 6], int(at.timestamp()))
        for i, (user, item, at) in enumerate(by_user)
    ]
    return write(folder / "Behavior.csv", lines(rows))


def tabs_rated(folder):
    """User, item, rating and time with tabs, no header, in no order."""
    rows = [(user + 1, item + 1, 1 + (user + item) % 5, int(at.timestamp())) for user, item, at in clicks()]
    random.Random(2).shuffle(rows)
    return write(folder / "u1.base", lines(rows, separator="\t"))


def sessions_nested(folder):
    """A JSON line a session, its events in an array."""
    by: dict[tuple[int, int], list[dict[str, object]]] = {}
    for i, (user, item, at) in enumerate(clicks()):
        by.setdefault((user, at.day), []).append(
            {"aid": item, "ts": int(at.timestamp() * 1000), "type": ["clicks", "clicks", "carts", "orders"][i % 4]}
        )
    text = "".join(json.dumps({"session": n, "events": events}) + "\n" for n, events in enumerate(by.values()))
    return write(folder / "train.jsonl", text)


def impressions(folder):
    """A line an impression: the items shown in one text, those taken marked."""
    rows = []
    for n, (user, item, at) in enumerate(clicks()):
        shown = " ".join(f"N{(item + 7 * j) % 60 + 100}-{int(j == n % 4)}" for j in range(4))
        rows.append(
            (n + 1, f"U{user + 10}", ago(at, "%m/%d/%Y %I:%M:%S %p"), f"N{item + 100} N{(item + 1) % 60 + 100}", shown)
        )
    return write(folder / "shown.tsv", lines(rows, separator="\t"))


def day_and_milliseconds(folder):
    """The day in one column, milliseconds of the session in another."""
    rows = [
        (1 + user + 100 * at.day, "NA" if user % 2 else user, 80000 + item,
         (at.hour * 3600 + at.minute * 60 + at.second) * 1000,
         ago(at, "%Y-%m-%d")) for user, item, at in clicks()
    ]  # fmt: skip
    return write(folder / "looked_at.csv", lines(rows, "visit_id;customer;article;timeframe;day", ";"))


def pieces(folder):
    """A date, and a row for each piece bought."""
    rows = [
        (ago(at, "%Y-%m-%d"), f"{user:064x}", 108775000 + item, f"0.0{(item % 7) + 1}", 1 + user % 2)
        for user, item, at in clicks() for _ in range(1 + (user + item) % 2)
    ]  # fmt: skip
    return write(folder / "transactions_train.csv", lines(rows, "t_dat,customer_id,article_id,price,sales_channel_id"))


def nested_analytics(folder):
    """An analytics export: nested properties, times with offsets."""
    rows = [
        {"messageId": f"m{i}", "visitor": f"a{user}",
         "action": ["Product Viewed", "Product Added", "Order Completed"][i % 3],
         "at": at.isoformat(timespec="milliseconds"), "attrs": {"product_id": f"p{item}", "price": item + 0.5}}
        for i, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    return write(folder / "track.json", "".join(json.dumps(row) + "\n" for row in rows))


def plays(folder):
    """Plays with tabs and no header: who, when, artist and track, some without an id."""
    rows = [
        (f"user_{user:06d}", ago(at, "%Y-%m-%dT%H:%M:%SZ"), f"art-{item % 9:04d}", f"Artist {item % 9}",
         f"trk-{item:05d}", f'Track "{item}"' if item % 5 == 0 else f"Track {item}")
        for user, item, at in sorted(clicks(), key=lambda r: r[0])
    ]  # fmt: skip
    return write(folder / "plays.tsv", lines(rows, separator="\t"))
