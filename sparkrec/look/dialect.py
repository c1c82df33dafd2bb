"""How the text of a file is written: encoding, separator, quotes, header.

What is proposed must be what the readers of a night can read, separators of several characters included; so the
candidates are theirs and each is tried on the rows themselves: the separator that cuts nearly all rows into the same
number of fields, the most of them, is taken (the row pattern of van den Burg et al., "Wrangling messy CSV files by
detecting row and type patterns", 2019).
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

SEPARATORS = ("\t", ",", ";", "|", "::", " ")
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
LINES = 1000  # that the separator is told by
# Those that logs come in where they are not UTF-8; of the western ones windows-1252, whose signs hold ISO-8859-1's.
ENCODINGS = ["cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256", "shift_jis", "euc_jp",
             "gb18030", "big5", "euc_kr"]  # fmt: skip
NEAR_WESTERN, SIGNS = ("cp1250", "cp1254"), "€„“”‚‘’–—°²§«»…·©®™½¼"
DATUM = re.compile(r"^[-+]?[\d.,:/ TZ-]+$")


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. ``names`` are the header's, or ``c1``, ``c2``, … where it has none."""

    separator: str
    quote: str
    header: bool
    names: tuple[str, ...]
    comment: str = ""
    record_lines: int = 1  # that the longest record spans


def encoding_of(data: bytes) -> str:
    """The encoding of some bytes: by their mark, UTF-8 where they are, else what charset-normalizer takes them for."""
    for mark, name in BOMS:
        if data.startswith(mark):
            return name
    head = data[: data.rfind(b"\n") + 1] or data
    try:
        head.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    if head[:4096].count(b"\0") > len(head[:4096]) // 8:
        return "utf-16le" if head[1:2] == b"\0" else "utf-16be"
    from charset_normalizer import from_bytes

    lines = [line for line in head.split(b"\n") if not line.isascii()]  # the others say nothing, and are most
    odd = b"\n".join(lines)[: 1 << 15]
    best = from_bytes(odd, cp_isolation=ENCODINGS).best()
    found = best.encoding if best else "cp1252"
    if found in NEAR_WESTERN:  # they differ in a few letters: where all are letters in the western one, it is that
        strange = [c for c in odd.decode("cp1252", errors="replace") if not c.isascii() and c not in SIGNS]
        found = "cp1252" if all(c.isalpha() for c in strange) else found
    return found.replace("cp12", "windows-12").replace("_", "-")


def decoded(data: bytes, encoding: str) -> str:
    """Bytes as text without a mark; what does not fit becomes U+FFFD."""
    return data.decode(encoding, errors="replace").removeprefix("\ufeff")


def dialect_of(text: str) -> Dialect | None:
    """How some whole lines of CSV are written; None where no separator cuts them into fields."""
    lines = [line for line in text.splitlines() if line.strip()]
    comment = "#" if lines and lines[0].startswith("#") and not lines[-1].startswith("#") else ""
    lines = [line for line in lines if not comment or not line.startswith(comment)][:LINES]
    best: tuple[float, int, str, str] | None = None
    for separator in SEPARATORS:
        quoted, plain = (_pattern(_cut(lines, separator, quote)) for quote in ('"', ""))
        quote = "" if separator == "::" or plain[0] > quoted[0] else '"'
        share, n = quoted if quote else plain
        if n < 2 or share < 0.5 or (separator == " " and share < 0.99):
            continue
        score = (round(share, 1) * (1 if separator != " " else 0.5), n)
        if best is None or score > best[:2]:
            best = (*score, separator, quote)
    if best is None:
        return None
    separator, quote = best[2], best[3]
    rows = _cut(lines, separator, quote)
    width = Counter(len(row) for row in rows).most_common(1)[0][0]
    header = len(rows[0]) == width and is_header(rows[0], [row for row in rows[1:] if len(row) == width])
    names = tuple(rows[0]) if header else tuple(f"c{i + 1}" for i in range(width))
    records = _records(text, separator, quote)
    return Dialect(separator, quote, header, names, comment, records)


def is_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a row names the columns: short names, each once, and unlike what stands below them."""
    names = [name.strip() for name in first]
    if len(set(names)) < len(names) or any(not n or len(n) > 60 or DATUM.match(n) for n in names):
        return False
    if not rows:
        return True
    data = [
        i for i in range(len(names)) if _share(DATUM.match(r[i].strip()) is not None for r in rows if i < len(r)) > 0.7
    ]
    if data:
        return True
    again = {i: Counter(r[i] for r in rows if i < len(r)) for i in range(len(names))}
    return all(name not in again[i] for i, name in enumerate(first)) and all(
        re.fullmatch(r"[\w .:()/%#-]+", n) for n in names
    )


def _share(found: Iterable[bool]) -> float:
    found = list(found)
    return sum(found) / max(1, len(found))


def _cut(lines: Sequence[str], separator: str, quote: str) -> list[list[str]]:
    if len(separator) > 1 or not quote:
        return [line.split(separator) for line in lines]
    try:
        return [row for row in csv.reader(lines, delimiter=separator, quotechar=quote) if row]
    except csv.Error:
        return []


def _pattern(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    """The share of rows that have the commonest number of fields, and that number."""
    n, times = Counter(len(row) for row in rows).most_common(1)[0] if rows else (0, 0)
    return times / max(1, len(rows)), n


def _records(text: str, separator: str, quote: str) -> int:
    """Lines of the longest record, of the first ones."""
    if not quote or len(separator) > 1:
        return 1
    try:
        rows = islice(csv.reader(text.splitlines(keepends=True), delimiter=separator, quotechar=quote), LINES)
        return 1 + max((sum(f.count("\n") for f in row) for row in rows), default=0)
    except csv.Error:
        return 1
