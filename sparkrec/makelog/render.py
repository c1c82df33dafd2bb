"""Events in the notation of each format, and the attributes of the items beside them.

A :class:`Renderer` turns events into columns of text; damage (bad rows) is done to those columns, and ``lines`` joins
them into the bytes of a file. All of it is vectorised with Arrow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparkrec.makelog import names
from sparkrec.makelog.options import LogOptions
from sparkrec.makelog.simulate import DAY_S, Events
from sparkrec.makelog.world import World

Columns = dict[str, pa.Array]
EPOCH = date(1970, 1, 1)
FIRST_CUSTOMER, FIRST_INVOICE = 12346, 536365
COUNTRIES = (*["United Kingdom"] * 17, "Germany", "France", "EIRE")

SUMMARIES = (
    ("Broke at once", "Do not buy", "Disappointed"),
    ("Not great", "Expected more", "Meh"),
    ("It is okay", "Does the job", "Average"),
    ("Good value", "Pretty good", "Happy with it"),
    ("Love it!", "Five stars", 'Simply "perfect"'),
)
OPENINGS = (
    ("It fell apart within a week.", "Arrived damaged.", "Nothing works as described."),
    ("The finish is poor.", "It works, but barely.", "I would not buy it again."),
    ("Neither good nor bad.", "It does what it should.", "Fair for the price."),
    ("Well made and pretty.", "A nice piece overall.", "It arrived quickly and works well."),
    ("Absolutely wonderful.", "The best that I have ever had.", "Everybody asks me where I got it."),
)
CLOSINGS = (
    "I use it every day.",
    "It was a present for my sister.",
    "My second one from this brand.",
    "Packaging could be better.",
    "Delivery took a week.",
    "The colour is a bit different from the picture.",
    "It's smaller than I thought.",
)


@dataclass(frozen=True)
class Attributes:
    """An attribute file: its name and its columns, one row for each item."""

    file: str
    columns: dict[str, list[str]]


@dataclass(frozen=True)
class Renderer:
    """How a format is written.

    Attributes:
        columns: Events and their day to columns of text, in the order of the file.
        header: The first line of a file, or "".
        glue: What stands before, between and after the columns of a line; one more than there are columns.
        bad: Values that make a row unreadable: column and text.
        cut: A line cut off after so many characters is unreadable.
        file_name: Name of a day's file without ``.gz``, with ``{day}`` in it.
        log_name: Name of the one file of a whole log, without ``.gz``.
        attributes: The attribute file, or None where the log itself holds the attributes.
    """

    columns: Callable[[Events, int], Columns]
    header: str
    glue: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    cut: int
    file_name: str
    log_name: str
    attributes: Attributes | None


def build_renderer(world: World, options: LogOptions) -> Renderer:
    """The renderer of the format of ``options``."""
    makers = {"reviews": _reviews, "invoices": _invoices, "sessions": _sessions, "ratings": _ratings}
    return makers[options.format](world, options)


def lines(columns: Columns, glue: Sequence[str]) -> pa.Array:
    """Joins columns of text into lines, each with its line end."""
    parts: list[pa.Array | str] = [glue[0]]
    for column, after in zip(columns.values(), glue[1:], strict=True):
        parts += [column, after]
    return pc.binary_join_element_wise(*parts, "", null_handling="replace", null_replacement="")


def csv_text(values: Sequence[str]) -> pa.Array:
    """Texts as CSV fields, quoted where they must be."""
    return pa.array(['"' + v.replace('"', '""') + '"' if set(v) & set(',"\n\r') else v for v in values], pa.string())


def _comma(n: int) -> tuple[str, ...]:
    return ("", *[","] * (n - 1), "\n")


def _day(options: LogOptions, day: int) -> date:
    return options.start + timedelta(days=day)


def _text(numbers: NDArray[np.generic]) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _user_text(numbers: NDArray[np.int64], anonymous: NDArray[np.bool_], after: str = "") -> pa.Array:
    text = pc.cast(pa.array(numbers, mask=anonymous), pa.string())
    return pc.binary_join_element_wise(text, after, "") if after else text


def _unix(options: LogOptions, ts: NDArray[np.int64]) -> NDArray[np.int64]:
    return ts + (options.start - EPOCH).days * DAY_S


def _scramble(numbers: NDArray[np.integer], digits: int) -> NDArray[np.int64]:
    """A one-to-one map of 0, 1, 2, … to numbers of ``digits`` digits in no visible order."""
    return (numbers.astype(np.int64) * 7_654_321 + 1_234_567) % 10**digits


def _padded(numbers: NDArray[np.int64], digits: int, before: str = "") -> pa.Array:
    return pc.binary_join_element_wise(before, pc.utf8_lpad(_text(numbers), digits, "0"), "")


def _stars(world: World, events: Events, low: int, high: int) -> NDArray[np.int64]:
    """Ratings: the item's quality, the user's kindness, their taste, and noise."""
    liked = (world.favourites[events.user] == world.category[events.item][:, None]).any(axis=1)
    kindness = world.bias[events.user]
    inner = 0.15 + world.quality[events.item] + kindness + 0.7 * liked + 0.6 * events.amount
    scaled = low + (high - low) * (0.5 + inner / 4)
    return np.clip(np.rint(scaled), low, high).astype(np.int64)


def _invoices(world: World, options: LogOptions) -> Renderer:
    codes = pa.array([f"{10000 + i}{'ABCDE'[i % 5] if i % 7 == 0 else ''}" for i in range(world.n_items)])
    titles, prices = csv_text(names.product_titles(world)), pa.array(names.prices(world))
    countries = csv_text(COUNTRIES)
    minutes = pa.array([f"{m // 60:02d}:{m % 60:02d}:00" for m in range(24 * 60)])

    def columns(events: Events, day: int) -> Columns:
        units = np.maximum(1, np.rint(np.exp(1.2 + 0.9 * events.amount))).astype(np.int64)
        minute = pa.array((events.ts - day * DAY_S) // 60)
        number = _text(events.session + FIRST_INVOICE)
        return {
            "InvoiceNo": pc.if_else(pa.array(events.cancels), pc.binary_join_element_wise("C", number, ""), number),
            "StockCode": codes.take(pa.array(events.item)),
            "Description": titles.take(pa.array(events.item)),
            "Quantity": _text(np.where(events.cancels, -units, units)),
            "InvoiceDate": pc.binary_join_element_wise(str(_day(options, day)), minutes.take(minute), " "),
            "UnitPrice": prices.take(pa.array(events.item)),
            "CustomerID": _user_text(events.user.astype(np.int64) + FIRST_CUSTOMER, events.user < 0, ".0"),
            "Country": countries.take(pa.array(np.maximum(events.user, 0) % len(COUNTRIES))),
        }

    header = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    bad = (
        ("InvoiceDate", "yesterday"),
        ("InvoiceDate", "2999-01-01 08:00:00"),
        ("StockCode", ""),
        ("Quantity", "999999999999"),
    )
    return Renderer(columns, header, _comma(8), bad, 7, "{day}.csv", "invoices.csv", None)


def _sessions(world: World, options: LogOptions) -> Renderer:
    # Session and song ids look arbitrary, as in real logs, but are unique.
    song = _scramble(np.arange(world.n_items), 10)

    def columns(events: Events, day: int) -> Columns:
        played = np.maximum(5, np.rint(240 + 60 * events.amount)).astype(np.int64)
        made = {
            "session_id": _text(events.session + 1),
            "user_id": _user_text(events.user.astype(np.int64), events.user < 0),
            "song_id": _text(song[events.item]),
            "ts": _text(_unix(options, events.ts)),
            "playtime": _text(played),
        }
        return made if options.session_id else {k: v for k, v in made.items() if k != "session_id"}

    names_ = ["session_id", "user_id", "song_id", "ts", "playtime"][0 if options.session_id else 1 :]
    attributes = {
        "song_id": [str(i) for i in song.tolist()],
        "title": names.product_titles(world),
        "category": [names.category_names(world)[c] for c in world.category.tolist()],
        "brand": names.brands(world),
        "price": names.prices(world),
    }
    bad = (("ts", "-1"), ("song_id", ""), ("ts", "1700000000000"))
    header = ",".join(names_) + "\n"
    file, kind = Attributes("items.csv", attributes), options.written_as
    return Renderer(columns, header, _comma(len(names_)), bad, 5, f"{{day}}.{kind}", f"sessions.{kind}", file)


def _reviews(world: World, options: LogOptions) -> Renderer:
    asin = pa.array([f"B{k:09d}" for k in _scramble(np.arange(world.n_items), 9).tolist()])
    titles = names.product_titles(world)
    title_json = pa.array([json.dumps(f"About the {t}: ")[1:-1] for t in titles])
    people = pa.array([json.dumps(f"{g} {f}")[1:-1] for g in names.GIVEN_NAMES for f in names.FAMILY_NAMES])
    summaries, openings = (pa.array([json.dumps(t)[1:-1] for s in p for t in s]) for p in (SUMMARIES, OPENINGS))
    closings = pa.array([json.dumps(t)[1:-1] for t in CLOSINGS])

    def columns(events: Events, day: int) -> Columns:
        stars = _stars(world, events, 1, 5)
        variant = (events.session * 31 + events.item) % 105
        person = pa.array((events.user * 5) % len(people))
        unix = (_day(options, day) - EPOCH).days * DAY_S
        return {
            "reviewerID": _padded(_scramble(events.user, 12), 12, "A"),
            "asin": asin.take(pa.array(events.item)),
            "reviewerName": people.take(person),
            "helpful": _text(variant % 4),
            "reviewText": pc.binary_join_element_wise(
                title_json.take(pa.array(events.item)),
                openings.take(pa.array((stars - 1) * 3 + variant % 3)),
                " ",
                closings.take(pa.array(variant % 7)),
                " Order ",
                _text(events.session + 1),
                "",
            ),
            "overall": _text(stars),
            "summary": summaries.take(pa.array((stars - 1) * 3 + variant % 5 % 3)),
            "unixReviewTime": pa.array([str(unix)]).take(pa.array(np.zeros(len(events), np.int64))),
            "reviewTime": pa.array([f"{_day(options, day):%m %d, %Y}"]).take(pa.array(np.zeros(len(events), np.int64))),
        }

    glue = (
        '{"reviewerID": "', '", "asin": "', '", "reviewerName": "', '", "helpful": [', ', 4], "reviewText": "',
        '", "overall": ', '.0, "summary": "', '", "unixReviewTime": ', ', "reviewTime": "', '"}\n',
    )  # fmt: skip
    attributes = {
        "asin": asin.to_pylist(),
        "title": titles,
        "category": [names.category_names(world)[c] for c in world.category.tolist()],
        "brand": names.brands(world),
        "price": names.prices(world),
    }
    bad = (("unixReviewTime", '"soon"'), ("asin", ""), ("unixReviewTime", "1393545600000"))
    return Renderer(columns, "", glue, bad, 40, "{day}.json", "reviews.json", Attributes("items.json", attributes))


def _ratings(world: World, options: LogOptions) -> Renderer:
    film = pa.array([f"{k:07d}" for k in _scramble(np.arange(world.n_items), 7 if world.n_items < 10**7 else 10)])

    def columns(events: Events, day: int) -> Columns:
        return {
            "user_id": _text(events.user.astype(np.int64) + 1),
            "item_id": film.take(pa.array(events.item)),
            "rating": _text(_stars(world, events, 1, 10)),
            "ts": _text(_unix(options, events.ts)),
        }

    attributes = {"item_id": film.to_pylist(), "title": names.film_titles(world), "genres": names.film_genres(world)}
    bad = (("ts", "soon"), ("item_id", ""), ("ts", "1393545600000"))
    glue = ("", "::", "::", "::", "\n")
    return Renderer(columns, "", glue, bad, 2, "ratings-{day}.dat", "ratings.dat", Attributes("movies.dat", attributes))
