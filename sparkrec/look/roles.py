"""Which column is what: by its name, by its values, and by how they repeat."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparkrec.look.columns import bounds, mean, share
from sparkrec.look.times import PER_SECOND, doubtful, unit_of

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.look.sample import Kind

# Names in lower case without other signs than letters, the likeliest first.
NAMES = {
    "user": (
        "userid user uid reviewerid customerid customer visitorid clientid client householdkey householdid "
        "memberid accountid userpseudoid anonymousid kundennummer kundennr kunde kundenid buyerid buyer "
        "profileid personid steamid deviceid fullvisitorid cookieid customernumber customerno userhash member "
        "household username reviewer msno email emailaddress cliente idclient idcliente numeroclient"
    ),
    "item": (
        "itemid item productid product asin parentasin sku stockcode articleid article movieid songid trackid "
        "isbn aid videoid newsid appid businessid gmapid artikelnummer artikelnr artikel artikelid artid "
        "produktid bookid goodsid contentid itemcode productcode materialno matnr ean gtin gameid animeid "
        "beerid recipeid eventid showid adid track song movie book game musicbrainztrackid variantid offerid "
        "listingid itemsitemid propertiesproductid venueid placeid poiid locationid produit producto produto prodotto "
        "articulo articolo artigo lineitemsku"
    ),
    "ts": (
        "timestamp ts eventtime eventtimestamp time datetime unixreviewtime createdat created invoicedate "
        "orderdate purchasedate transactiondate transactiontimestamp tdat date datum zeitstempel zeit "
        "zeitpunkt bestelldatum kaufdatum eventdate reviewtime ratingtimestamp clicktime timems unixtime "
        "ratedat orderedat visittime receivedat originaltimestamp orderdatetime playedat lastplayed "
        "fecha fechahora dateheure data datahora dataora"
    ),
    "event_type": (
        "eventtype event type action actiontype behavior behaviortype behaviour eventname interaction "
        "interactiontype ereignis aktion typ"
    ),
    "value": (
        "rating ratings overall stars score reviewscore reviewrating reviewoverall bewertung note sterne "
        "playtime playcount watchratio listencount plays hoursplayed dwelltime valoracion avaliacao valutazione"
    ),
    "quantity": "quantity qty menge anzahl units stueck stuck unitssold numitems count "
    "quantite cantidad quantidade quantita",
    "price": "price unitprice preis einzelpreis salesvalue saleprice salesprice itemprice betrag amount umsatz paid "
    "prix precio preco prezzo",
    "session": "sessionid session sid visitid gasessionid usersession sessionnumber",
    "basket": (
        "basketid basket orderid order invoiceno invoice invoiceid invoicenumber transactionid receiptid "
        "receipt bestellnummer bestellnr bestellung rechnungsnummer rechnungsnr rechnung bonnummer bon cartid "
        "ticketid purchaseid commande pedido ordine encomenda facture factura fattura"
    ),
    "text": "reviewtext text review body comment reviewbody content kommentar",
}
TITLES = ("title", "name", "productname", "itemname", "description", "bezeichnung", "artikelbezeichnung", "trackname")
FEATURES = ("brand", "category", "genre", "genres", "department", "maincategory", "categorycode", "artist", "marke",
            "kategorie", "warengruppe", "producttype", "categoryid", "colour", "color", "author")  # fmt: skip
WEIGHTS = {  # of an interaction by words that its type is named with, the first that fits
    r"impression|shown|exposure|search|filter|\bsort|change of": 0.0,
    r"remove|cancel|return|refund|dislike|delete|retour|storno": 0.0,
    r"purchase|buy|bought|transaction|order|checkout|sale|kauf|bestell": 5.0, r"cart|basket|bag|warenkorb": 3.0,
    r"fav|like|wish|save|follow|share|merk": 2.0,
}  # fmt: skip
BOUGHT = r"purchase|buy|bought|transaction|order(?!ed_list)|sale|kauf|bestell"
EVENT_WORDS = re.compile(r"view|detail|^add|click|^pv$|play|listen|watch|open|read|visit|skip|rate|review|impression|"
                         r"ansicht|klick|"                         + "|".join(WEIGHTS), re.IGNORECASE)  # fmt: skip

CLOCK = re.compile(r"^\d{1,3}:\d{2}(:\d{2})?$")


@dataclass(frozen=True)
class Column:
    """What the values of a column look like, in the rows that were read.

    Attributes:
        name: Its name.
        filled: Share of rows with a value.
        distinct: Different values.
        number: Share of the values that are numbers.
        whole: Share that are whole numbers.
        low, high: The least and greatest of them.
        length: Mean length of the values.
        runs: Mean length of runs of one value in the order of the rows.
        unit: In which the values are times, or None.
        other_unit: Another one that fits as well.
        values: Some values.
        comma: Whether numbers are written with a comma.
    """

    name: str
    filled: float
    distinct: int
    number: float
    whole: float
    low: float
    high: float
    length: float
    runs: float
    unit: str | None
    other_unit: str | None
    values: tuple[str, ...]
    comma: bool = False


@dataclass(frozen=True)
class Explode:
    """A column that holds several items."""

    column: str
    kind: str  # structs | array | text
    separator: str = " "
    suffix: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Roles:
    """The roles of a log's columns, and what is doubtful about them."""

    columns: dict[str, str] = field(default_factory=dict)  # role to column
    unit: str = ""
    plus: tuple[tuple[str, str], ...] = ()  # further columns of the time with their units
    explode: Explode | None = None
    decimal: str = "."
    types: dict[str, float] = field(default_factory=dict)  # weight by event type
    doubts: tuple[str, ...] = ()
    guessed: tuple[str, ...] = ()  # roles by place and values alone


def plain_name(name: str) -> str:
    """A column's name in lower case, of its letters without accents, and digits, those from a to z only."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFD", name.lower()))


def column_facts(rows: pl.DataFrame, name: str, type_: str = "") -> Column:
    """What the values of a column look like."""
    import polars as pl

    texts = rows[name].str.strip_chars()
    present = texts.filter(texts.is_not_null() & ~texts.is_in(["", "NULL", "null", "\\N", "nan", "NaN", "None", "NA"]))
    n = present.len()
    if n == 0:
        return Column(name, 0.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, None, None, ())
    numbers = present.cast(pl.Float64, strict=False)
    comma = bool(share(present.str.contains(r"^-?\d{1,3}(\.\d{3})*,\d{1,3}$|^-?\d+,\d+$")) > 0.5)
    if comma:
        numbers = present.str.replace_all(".", "", literal=True).str.replace(",", ".").cast(pl.Float64, strict=False)
    good = numbers.drop_nulls().filter(numbers.drop_nulls().is_finite())
    low, high = bounds(good)
    unit = unit_of(present, type_)
    runs = n / max(1, int((present != present.shift()).sum()) + 1)
    return Column(
        name, n / max(1, texts.len()), present.n_unique(), good.len() / n,
        float((good == good.floor()).sum()) / n if good.len() else 0.0,
        low, high,
        mean(present.str.len_chars()), runs, unit, doubtful(present, unit) if unit else None,
        tuple(present.unique(maintain_order=True).head(50)), comma,
    )  # fmt: skip


def roles_of(kind: Kind) -> Roles:
    """Gives a kind of files its roles; ``item`` and ``ts`` are missing where it is no log of events."""
    rows = kind.rows
    explode = _exploded(kind)
    if explode is not None:
        rows = opened(rows, explode)
    facts = {name: column_facts(rows, name, kind.type_of(name)) for name in rows.columns if not name.startswith("_")}
    named = kind.dialect is None or kind.dialect.header
    chosen: dict[str, str] = {}
    doubts: list[str] = []
    meant = {name: by_name(name) for name in facts} if named else {}
    for role in ("ts", "session", "basket", "user", "item", "event_type", "value", "quantity", "price", "text"):
        fit = [(meant[n][role], n) for n in meant if role in meant[n] and n not in chosen.values()]
        fit = [(rank, n) for rank, n in fit if _can_be(role, facts[n]) and _is_meant(role, rank, facts[n])]
        fit.sort(key=lambda one: one[0])  # of equal ranks the first column
        if role == "event_type":
            fit.sort(key=lambda one: not _has_words(facts[one[1]]))
        if role == "item" and rows.height > 50:  # an id of the row's own is that of an event
            again = [(rank, n) for rank, n in fit if facts[n].distinct < 0.99 * rows.height]
            fit = again or [(rank, n) for rank, n in fit if plain_name(n) != "eventid"]
        if fit:
            chosen[role] = fit[0][1]
            if len(fit) > 1 and role in ("user", "item") and fit[0][0] // 100 == fit[1][0] // 100 == 1:
                doubts.append(f"{role}: {fit[0][1]}, or {fit[1][1]}")
    if explode is not None and explode.kind != "structs":
        chosen["item"] = explode.column
    _time(facts, chosen, doubts)
    each = {n for n in kind.columns if kind.rows.height > 20 and kind.rows[n].n_unique() > 0.99 * kind.rows.height}
    named_so = set(chosen)
    _people_and_things(facts, chosen, doubts, each | {name for name, found in meant.items() if found})
    guessed = tuple(chosen.keys() - named_so)
    _by_values(facts, chosen, explode)
    plus = _rest_of_time(facts, chosen)
    amount = next((n for n in facts if plain_name(n) == "amount" and n not in chosen.values()), None)
    if amount and "price" in chosen and "quantity" not in chosen and facts[amount].whole > 0.99:
        chosen["quantity"] = amount  # beside a price it counts pieces
    numbers = [facts[chosen[r]] for r in ("value", "quantity", "price") if r in chosen]
    types = _types(rows, chosen.get("event_type"))
    if types and "event_type" in chosen and facts[chosen["event_type"]].number > 0.95 and not explode:
        doubts.append(f"event types are numbers, and all weigh the same: see {chosen['event_type']} in event_weights")
    if "ts" in chosen and (other := facts[chosen["ts"]].other_unit):
        doubts.append(f"ts: {facts[chosen['ts']].unit}, or {other}: no value tells day and month apart")
    unit = facts[chosen["ts"]].unit or "" if "ts" in chosen else ""
    decimal = "," if any(c.comma for c in numbers) else "."
    return Roles(chosen, unit, plus, explode, decimal, types, tuple(doubts), guessed)


def opened(rows: pl.DataFrame, explode: Explode) -> pl.DataFrame:
    """A row for each element of a column that holds several, as a night's reader makes them."""
    import polars as pl

    column = explode.column
    if explode.kind == "text":
        parts = pl.col(column).str.strip_chars().str.split(explode.separator)
        rows = rows.with_columns(parts).explode(column, empty_as_null=True, keep_nulls=True)
        if explode.suffix:
            said = pl.col(column).str.extract(explode.suffix, 1).alias(f"{column}.suffix")
            rows = rows.with_columns(said, pl.col(column).str.replace(explode.suffix, ""))
        return rows
    values = rows[column].map_elements(_elements, return_dtype=pl.List(pl.String))
    rows = rows.with_columns(values.alias(column)).explode(column, empty_as_null=True, keep_nulls=True)
    if explode.kind == "structs":
        inner = [json.loads(v) if v else {} for v in rows[column]]
        inner = [value if isinstance(value, dict) else {} for value in inner]
        fields = [pl.Series(f"{column}.{f}", [_said(v.get(f)) for v in inner], dtype=pl.String) for f in explode.fields]
        rows = rows.drop(column).with_columns(fields)
    return rows


def _elements(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError:
        return []
    return [v if isinstance(v, str) else json.dumps(v) for v in value] if isinstance(value, list) else []


def _said(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _exploded(kind: Kind) -> Explode | None:
    """The column that holds several items: an array of objects with an item, an array, or a delimited text."""
    head = kind.rows.head(2000)
    found = None
    for name in kind.columns:
        texts = head[name].drop_nulls()
        texts = texts.filter(texts != "")
        if texts.len() == 0:
            continue
        if kind.reader != "csv" and share(texts.str.starts_with("[")) > 0.9:
            elements = [e for v in texts.head(200) for e in _elements(v)]
            objects = [json.loads(e) for e in elements if e.startswith("{")]
            if objects and len(objects) > len(elements) / 2:
                fields = tuple(dict.fromkeys(f for o in objects for f in o))
                if any("item" in by_name(f) for f in fields) or any("item" in by_name(f"{name}{f}") for f in fields):
                    return Explode(name, "structs", fields=fields)
            elif elements and "item" in by_name(name.rstrip("s")) | by_name(name):
                return Explode(name, "array")
        several = _delimited(name, texts) if kind.reader == "csv" else None
        if several and (found is None or several.suffix):
            found = several
    return found


def _delimited(name: str, texts: pl.Series) -> Explode | None:
    """A text of several ids: parts of one shape, that come back in other rows; a title's words are of no shape."""
    for separator in (" ", ",", "|", ";"):
        parts = texts.str.strip_chars().str.split(separator)
        if share(parts.list.len() > 1) < 0.5 or mean(parts.list.len()) < 2:
            continue
        flat = parts.explode().drop_nulls()
        flat = flat.filter(flat != "")
        shown = flat.str.replace_all(r"\d+", "0").value_counts(sort=True)
        common = shown["count"].head(3).sum() / max(1, flat.len())
        if common < 0.95 or share(flat.str.contains(r"\d")) < 0.95 or unit_of(texts):
            continue
        suffix = r"-([01])$" if share(flat.str.contains(r".-[01]$")) > 0.99 else ""
        if suffix or "item" in by_name(name.rstrip("s")) or re.fullmatch(r"c\d+", name):
            return Explode(name, "text", separator, suffix)
    return None


def by_name(name: str) -> dict[str, int]:
    """The roles that a name speaks for, with a rank: below 100 by the whole name, from 100 on by a part of it."""
    last = plain_name(name.rsplit(".", 1)[-1])
    plain = plain_name(name)
    found: dict[str, int] = {}
    for role, words in NAMES.items():
        known = words.split()
        for text, begin in ((plain, 0), (last, 50)):
            if text in known and role not in found:
                found[role] = begin + min(known.index(text), 49)
        if role not in found:
            ends = [w for w in known if len(w) > 3 and (plain.endswith(w) or plain.startswith(w))]
            if ends:
                found[role] = 200 - len(ends[0])
    return found


def _can_be(role: str, column: Column) -> bool:
    if column.filled == 0:
        return False
    is_number = column.number > 0.95
    is_time = column.unit not in (None, *PER_SECOND, "yyyyMMdd", "yyyyMMddHHmmss")
    return {
        "ts": column.unit is not None,
        "user": column.length < 80 and not is_time and column.number - column.whole < 0.1,
        "item": column.length < 80
        and not is_time
        and column.distinct > 1
        and column.filled > 0.5
        and not (column.distinct <= 20 and _has_words(column)),
        "event_type": column.distinct <= 50 and (not is_number or column.distinct <= 6) and column.length < 40,
        "value": is_number or column.comma,
        "quantity": (is_number or column.comma) and column.filled > 0.3,
        "price": is_number or column.comma,
        "session": column.length < 80 and not is_time and column.distinct > 2,
        "basket": column.length < 80 and not is_time and column.distinct > 1,
        "text": column.length > 20 and sum(" " in value for value in column.values) > len(column.values) / 2,
    }[role]


def _is_meant(role: str, rank: int, column: Column) -> bool:
    """Whether values bear out what only a part of a name says."""
    if role != "event_type" or rank < 100:
        return True
    return _has_words(column)


def _has_words(column: Column) -> bool:
    """Whether most of the values are words for what happens to items."""
    return sum(bool(EVENT_WORDS.search(value)) for value in column.values) > len(column.values) / 2


def _time(facts: dict[str, Column], chosen: dict[str, str], doubts: list[str]) -> None:
    if "ts" in chosen:
        return
    found = [c for c in facts.values() if c.unit and c.filled > 0.5 and c.name not in chosen.values()]
    clear = [c for c in found if c.unit not in ("s", "ms", "us", "yyyyMMdd")] or found
    if clear:
        chosen["ts"] = clear[-1].name if clear[-1].unit == "s" else clear[0].name
        if len(clear) > 1:
            doubts.append(f"ts: {chosen['ts']}, or {', '.join(c.name for c in clear if c.name != chosen['ts'])}")


def _people_and_things(facts: dict[str, Column], chosen: dict[str, str], doubts: list[str], strange: set[str]) -> None:
    """User and item where no name says them: ids that come back; logs put who before what, and items are many.

    Args:
        facts: The columns.
        chosen: Roles so far; gets more.
        doubts: Likewise.
        strange: Columns that have another meaning by their name, or another value in each row.
    """
    taken = set(chosen.values()) | strange
    ids = [
        c for c in facts.values()
        if c.name not in taken and c.filled > 0.5 and c.distinct > 2 and c.length < 64
        and c.number - c.whole < 0.01 and not (c.number > 0.99 and c.high <= 10 and c.distinct <= 21)
        and not (c.unit and c.unit not in ("s", "yyyyMMdd")) and not all(CLOCK.match(v) for v in c.values)
    ]  # fmt: skip
    if "user" not in chosen and "session" not in chosen and ids:
        chosen["user"] = ids.pop(0).name
        doubts.append(f"user: {chosen['user']}, by its place and values alone")
    if "item" not in chosen and ids:
        most = max(c.distinct for c in ids)
        chosen["item"] = next(c.name for c in ids if c.distinct > 0.95 * most)
        doubts.append(f"item: {chosen['item']}, by its place and values alone")


def _by_values(facts: dict[str, Column], chosen: dict[str, str], explode: Explode | None) -> None:
    """Event type and rating where no name says them."""
    if explode is not None and explode.suffix:
        chosen["event_type"] = f"{explode.column}.suffix"
    for column in facts.values():
        if column.name in chosen.values():
            continue
        if "event_type" not in chosen and column.number < 0.1 and 2 <= column.distinct <= 20:
            if sum(bool(EVENT_WORDS.search(v)) for v in column.values) > len(column.values) / 2:
                chosen["event_type"] = column.name
        elif (
            "value" not in chosen and "quantity" not in chosen and re.fullmatch(r"c\d+", column.name)
            and column.number > 0.99 and column.low >= 0 and column.high <= 10 and 3 <= column.distinct <= 21
        ):  # fmt: skip
            chosen["value"] = column.name


def _rest_of_time(facts: dict[str, Column], chosen: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Columns that hold the hour where the time's own holds the day alone."""
    ts = facts.get(chosen.get("ts", ""))
    if ts is None or ts.unit is None or ts.unit in ("s", "ms", "us") or any(":" in v for v in ts.values):
        return ()
    if any(len(re.sub(r"\D", "", v)) > 8 for v in ts.values):
        return ()
    for column in facts.values():
        plain, values = plain_name(column.name), column.values
        if column.name in chosen.values() or not values:
            continue
        if all(re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", v) for v in values):
            return ((column.name, "HH:mm:ss" if values[0].count(":") == 2 else "HH:mm"),)
        if plain in ("timeframe", "milliseconds", "timems") and column.whole > 0.95:
            return ((column.name, "ms"),)
        if plain in ("time", "transtime", "uhrzeit", "zeit") and column.whole > 0.95 and column.high <= 2359:
            return ((column.name, "HHMM"),)
        if plain in ("hour", "hourofday", "stunde", "orderhourofday") and column.whole > 0.95 and column.high <= 24:
            return ((column.name, "h"),)
    return ()


def _types(rows: pl.DataFrame, column: str | None) -> dict[str, float]:
    """A weight for each event type, by the words in it."""
    if column is None:
        return {}
    values = rows[column].str.strip_chars().drop_nulls()
    names = values.filter(values != "").value_counts(sort=True).head(40)[column].to_list()
    return {name: weight_of(name, column) for name in names}


def weight_of(name: str, column: str = "") -> float:
    """A proposed weight of an interaction of a type."""
    if column.endswith(".suffix"):
        return 0.0 if name == "0" else 1.0
    return next((weight for words, weight in WEIGHTS.items() if re.search(words, name, re.IGNORECASE)), 1.0)


def bought(names: Sequence[str]) -> list[str]:
    """The event types that are purchases."""
    return [name for name in names if re.search(BOUGHT, name, re.IGNORECASE) and weight_of(name) > 0]
