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


def orders_and_lines(folder):
    """Orders in one file, their lines in another, and the catalogue in a third."""
    orders, bought = [], []
    for i, (user, item, at) in enumerate(clicks()):
        if i % 3 == 0:
            orders.append((500 + i // 3, f"C{user}", ago(at, "%Y-%m-%d %H:%M:%S"), ["paid", "open", "sent"][i % 4 % 3]))
        bought.append((500 + i // 3, i % 3 + 1, f"P{item:03d}", 1 + item % 3, f"{item}.95"))
    things = [(f"P{item:03d}", f"Thing {item}", ["toys", "books"][item % 2]) for item in range(60)]
    write(folder / "orders.csv", lines(orders, "order_id,customer_id,order_date,status"))
    write(folder / "products.csv", lines(things, "product_id,name,category"))
    write(folder / "order_lines.csv", lines(bought, "order_id,line_no,product_id,quantity,unit_price"))
    return folder


def orders_of_accounts(folder):
    """Lines, orders with a customer's id of their own each, and who is behind it; two pieces are two lines."""
    orders, people, bought = [], [], []
    for i, (user, item, at) in enumerate(clicks()):
        order = f"{i // 3:032x}"
        if i % 3 == 0:
            moment = ago(at, "%Y-%m-%d %H:%M:%S")
            orders.append((order, f"{7777 + i:032x}", "delivered", moment, moment))
            people.append((f"{7777 + i:032x}", f"{user:032x}", 14409 + user % 9, "franca", "SP"))
        for _ in range(1 + (i % 10 == 0)):
            n = sum(line[0] == order for line in bought[-6:]) + 1
            later = ago(at + timedelta(days=4), "%Y-%m-%d %H:%M:%S")
            bought.append((order, n, f"{item:032x}", f"{item % 9:032x}", later, f"{item}.90", "13.29"))
    write(folder / "orders_dataset.csv", lines(orders, "order_id,customer_id,status,purchase_timestamp,approved_at"))
    head = "customer_id,customer_unique_id,customer_zip_code_prefix,customer_city,customer_state"
    write(folder / "customers_dataset.csv", lines(people, head))
    head = "order_id,order_item_id,product_id,seller_id,shipping_limit_date,price,freight_value"
    write(folder / "order_items_dataset.csv", lines(bought, head))
    return folder


def reviews_of_days(folder):
    """Ratings with no more than a date."""
    rows = [(f"u{user}", f"b{item}", 1 + (user + item) % 5, ago(at, "%Y-%m-%d")) for user, item, at in clicks()]
    return write(folder / "reviews.csv", lines(rows, "reviewer,book_id,rating,date"))


def threes(folder, together):
    """Sessions of three from a thousand items: next to each other where they stand together, else drawn, few often."""
    draw, rows = random.Random(3), []
    for n in range(900):
        first, at = draw.randrange(1000), BEGIN + timedelta(minutes=50 * n)
        drawn = [int(draw.expovariate(0.02)) % 1000 for _ in range(3)]
        for k, item in enumerate([(first + k) % 1000 // 50 * 50 + k for k in range(3)] if together else drawn):
            rows.append((n % 90, item, n, ago(at + timedelta(minutes=k), "%Y-%m-%d %H:%M:%S")))
    return write(folder / "plays.csv", lines(rows, "user_id,track_id,session_id,time"))


def check_ins(folder):
    """Who, where, what kind of place, and a time with its weekday, without a header."""
    rows = [
        (user + 1, f"49bbd6c0f964a5{item:02d}", f"4bf58dd8{item % 7}", ["Café", "Bridge"][item % 2], 40.71981, -74.0,
         -240, ago(at, "%a %b %d %H:%M:%S +0000 %Y")) for user, item, at in clicks()
    ]  # fmt: skip
    return write(folder / "checkins.txt", lines(rows, separator="\t"), "windows-1252")


def shelves(folder):
    """JSON lines of books: a weekday and an offset in the time, an id for each review, empty texts."""
    rows = [
        {"user_id": f"{user:032x}", "book_id": str(1384 + item), "review_id": f"{n:032x}", "is_read": n % 2 == 0,
         "rating": (user + item) % 6, "review_text": "", "date_added": ago(at, "%a %b %d %H:%M:%S -0700 %Y")}
        for n, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    return write(folder / "interactions.json", "".join(json.dumps(row) + "\n" for row in rows))


def page_views(folder):
    """JSON lines of a news site: an id for each event, flags for a session's ends, the page by its address."""
    rows = [
        {"eventId": 1000 + n, "activeTime": n % 60, "url": f"http://news.ex/{item}.html", "userId": f"cx:{user:018x}",
         "sessionStart": n % 4 == 0, "sessionStop": n % 4 == 3, "time": int(at.timestamp()), "deviceType": "Mobile"}
        for n, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    return write(folder / "20240301", "".join(json.dumps(row) + "\n" for row in rows))


def hotels(folder):
    """Sessions with searches and filters among the clicks; a number of the referrer; times in nanoseconds."""
    types = ("interaction item image", "clickout item", "search for destination", "filter selection")
    rows = [
        (f"U{user:08X}", f"s{user}-{at:%d}", int(at.timestamp()) * 10**9 + 7, n % 9 + 1, types[n % 4],
         ["666" + str(item), "666" + str(item), '"Sydney, Australia"', "Hotel"][n % 4], n % 3)
        for n, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    return write(
        folder / "train.csv", lines(rows, "user_id,session_id,timestamp,step,action_type,reference,referrer_type")
    )


def shop_french(folder):
    """A shop's export with accents in its header, and an order's number before the product's."""
    rows = [
        (900 + n // 3, f"C{user}", f"REF{item:03d}", 1 + item % 3, f"{item},50", ago(at, "%d/%m/%Y %H:%M:%S"))
        for n, (user, item, at) in enumerate(clicks())
    ]
    header = "N° commande;N° client;Référence produit;Quantité;Prix;Date"
    return write(folder / "ventes.csv", lines(rows, header, ";"), "windows-1252")


def shop_actions(folder):
    """Page views without an item among the events of products, whose kind is in a column beside."""
    rows = [
        (f"{user * 100 + at.day:064x}", "event_product", ["detail", "add", "purchase", "remove"][n % 4], f"{item:064x}",
         int(at.timestamp() * 1000)) for n, (user, item, at) in enumerate(clicks())
    ]  # fmt: skip
    header = "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms"
    return write(folder / "browsing.csv", lines(rows, header))


def viewing(folder):
    """What profiles watched: how long stands before the title, two times beside each other."""
    rows = [
        (f"P{user}", ago(at, "%b %d, %Y %I:%M %p"), f"00:{item:02d}:10", f"Show {item}: Season 1")
        for user, item, at in clicks()
    ]
    return write(folder / "viewing.csv", lines(rows, "Profile Name\tStart Time\tDuration\tTitle", "\t"))


def folders(folder):
    """A folder for each user."""
    for part in range(40):
        mine = [(f"i{item}", int(at.timestamp()), n) for n, (user, item, at) in enumerate(clicks()) if user == part]
        write(folder / f"user=u%20{part}" / "h.csv", lines(mine, "thing,at,n"))
    return folder


def no_log(name):
    """The text of a file that no format can say."""
    rows = clicks(60)
    matrix = ["99" if (i * j) % 3 == 0 else f"{(i * j) % 19 - 9}.{j % 10}0" for i in range(30) for j in range(40)]
    return {
        "ratings.csv": lines([(u, f"0{i:08d}X", u * i % 11) for u, i, _ in rows], '"User-ID";"ISBN";"Rating"', ";"),
        "jester.csv": "".join(",".join(matrix[40 * i : 40 * i + 40]) + "\n" for i in range(30)),
        "combined.txt": "".join(f"{i}:\n1488{u},3,2005-09-06\n1{u},4,2005-09-07\n" for u, i, _ in rows),
        "offsets.tsv": lines([(60 * n, 70 + u, i) for n, (u, i, _) in enumerate(rows)], "timestamp\tuid\titem", "\t"),
        "months.csv": lines([(u, i, ago(t, "%m%d"), 1) for u, i, t in rows], "user_id,item_id,time_stamp,action_type"),
        "beer.txt": "".join(f"beer/id: {i}\nreview/time: {t:%s}\nreview/by: u{u}\n\n" for u, i, t in rows),
        "excel.csv": "sep=;\n" + lines([(u, i, ago(t, "%d.%m.%Y")) for u, i, t in rows], "Kunde;Artikel;Datum", ";"),
        "access.log": "".join(
            f'10.0.0.{u} - - [{t:%d/%b/%Y:%H:%M:%S} +0000] "GET /p/{i} HTTP/1.1" 200 23 "-" "M"\n' for u, i, t in rows
        ),
        "arrays.jsonl": "".join(
            json.dumps({"user": u, "items": [i, i + 1], "times": [int(t.timestamp())] * 2}) + "\n" for u, i, t in rows
        ),
        "first_line_of_an_order.csv": lines(
            [(f"#{n // 3}", "" if n % 3 else f"u{u}@x.org", "" if n % 3 else ago(t, "%Y-%m-%d %H:%M"), f"sku-{i}")
             for n, (u, i, t) in enumerate(rows)], "Name,Email,Created at,Lineitem sku"
        ),
        "log.avro": "Obj\x01\x04schema" * 9,
    }[name]  # fmt: skip
