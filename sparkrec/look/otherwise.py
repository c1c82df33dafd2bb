"""Files that no format can say, by what they begin with: why, and what to make of them first."""

from __future__ import annotations

import re
from collections.abc import Sequence

BEGINNINGS = {
    b"Obj\x01": "Avro: write it as Parquet",
    b"ORC": "ORC: write it as Parquet",
    b"ARROW1": "Arrow: write it as Parquet",
    b"\x89HDF": "HDF5: write it as Parquet",
    b"SQLite format 3": "SQLite: write its table as CSV or Parquet",
    b"\x1f\x8b": "gzip by its bytes: name it so, x.csv.gz",
    b"BZh": "bzip2 by its bytes: name it so, x.csv.bz2",
    b"\x28\xb5\x2f\xfd": "zstd by its bytes: name it so, x.csv.zst",
    b"\xfd7zXZ": "xz by its bytes: name it so, x.csv.xz",
    b"PK\x03\x04": "zip by its bytes: name it so, or write its sheets as CSV",
}
ACCESS = re.compile(r'^\S+ \S+ .*\[\d+/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "')
BLOCK_LINE = re.compile(r"^[A-Za-z][\w/ -]{0,40}: ?\S")
ABOVE = re.compile(r"^\S{1,40}:$")


def packed_otherwise(head: bytes) -> str:
    """Why a file of these first bytes is no log that could be read; empty where nothing is known against it."""
    return next((why for begin, why in BEGINNINGS.items() if head.startswith(begin)), "")


def written_otherwise(lines: Sequence[str]) -> str:
    """The same by the first lines that are not blank."""
    first = lines[0].strip()
    if first in ("[", "[{") or re.match(r"^\[\s*\{", first):
        return "one JSON array: write it as JSON lines, an object each (jq -c '.[]')"
    if re.fullmatch(r"sep=.", first):
        return "Excel's line sep= stands above the header: take it away (sed -i 1d)"
    if _share(lines, ACCESS) > 0.9:
        return "a web server's log: write who, what and when of each line as columns"
    names = [line.split(":")[0] for line in lines]
    if len(lines) > 5 and _share(lines, BLOCK_LINE) > 0.8 and len(set(names)) < len(names) / 2:
        return "blocks of lines 'name: value': write each block as one line of JSON"
    above = [line for line in lines if ABOVE.match(line.strip())]
    if above and len(above) < len(lines) and ABOVE.match(first):
        return f"lines such as '{first}' tell what the lines below are of: write it into each of these"
    return ""


def _share(lines: Sequence[str], pattern: re.Pattern[str]) -> float:
    return sum(bool(pattern.match(line)) for line in lines) / max(1, len(lines))
