"""Times as logs write them: which unit a column has, and its values as times. On columns of text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from sparkrec.look.columns import share
from sparkrec.settings.formats import TIME_UNITS, WEEKDAY, begins_with_weekday, without_weekday

if TYPE_CHECKING:
    import polars as pl

EARLIEST = datetime(1990, 1, 1)  # as ingest.min_ts
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
ISO = r"^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9}))?)? ?(Z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})?$"
# Patterns of Spark that are tried, those first that leave no doubt. d, M, h stand for one digit or two.
PATTERNS = (
    "yyyyMMddHHmmss", "yyyyMMdd", "yyyy/MM/dd HH:mm:ss", "yyyy/MM/dd HH:mm", "yyyy/MM/dd", "yyyy.MM.dd HH:mm:ss",
    "d.M.yyyy HH:mm:ss", "d.M.yyyy HH:mm", "d.M.yyyy", "d.M.yy HH:mm", "d.M.yy",
    "M/d/yyyy h:mm:ss a", "M/d/yyyy h:mm a", "M/d/yyyy H:mm:ss", "M/d/yyyy H:mm", "M/d/yyyy", "M/d/yy H:mm", "M/d/yy",
    "d/M/yyyy h:mm:ss a", "d/M/yyyy H:mm:ss", "d/M/yyyy H:mm", "d/M/yyyy", "d/M/yy H:mm", "d/M/yy",
    "d-M-yyyy HH:mm:ss", "d-M-yyyy HH:mm", "d-M-yyyy",
    "MM d, yyyy", "MMM d, yyyy", "MMMM d, yyyy", "MMM d, yyyy h:mm a",
    "MMM d, yyyy HH:mm", "d MMM yyyy HH:mm", "d MMM yyyy, HH:mm", "d MMM yyyy", "d MMM yyyy HH:mm:ss",
    "dd/MMM/yyyy:HH:mm:ss Z", "EEE MMM d HH:mm:ss Z yyyy", "EEE, d MMM yyyy HH:mm:ss Z", "EEE MMM d HH:mm:ss yyyy",
)  # fmt: skip
TOKENS = {
    "yyyy": "%Y", "yy": "%y", "MMMM": "%B", "MMM": "%b", "MM": "%m", "M": "%m", "dd": "%d", "d": "%d", "HH": "%H",
    "H": "%H", "hh": "%I", "h": "%I", "mm": "%M", "m": "%M", "ss": "%S", "s": "%S", "SSSSSS": "%6f", "SSS": "%3f",
    "a": "%p", "Z": "%z", "XXX": "%:z", "X": "%#z", "xxx": "%:z",
}  # fmt: skip


def unit_of(texts: pl.Series, type_: str = "") -> str | None:
    """The unit or pattern in which nearly all values of a column are times; None where it holds none.

    Args:
        texts: The column.
        type_: ``timestamp`` or ``date`` of a typed file.
    """
    if type_.startswith(("timestamp", "date")):
        return "timestamp"
    texts = texts.drop_nulls().str.strip_chars()
    texts = texts.filter(texts != "").head(2000)
    if texts.len() == 0:
        return None
    if share(texts.str.contains(r"^-?\d+(\.\d+)?([eE]\+?\d+)?$")) >= 0.95:
        digits = [unit for unit in PER_SECOND if _fits(texts, unit)]
        return digits[0] if digits else next((p for p in ("yyyyMMddHHmmss", "yyyyMMdd") if _fits(texts, p)), None)
    return next((unit for unit in ("iso", *PATTERNS) if _fits(texts, unit)), None)


def doubtful(texts: pl.Series, unit: str) -> str | None:
    """Another pattern that the values fit as well: day and month are told apart by values above 12 alone."""
    if "/" not in unit or not ("d/M" in unit or "M/d" in unit):
        return None
    other = unit.replace("d/M", "?").replace("M/d", "d/M").replace("?", "M/d")
    texts = texts.drop_nulls().str.strip_chars().head(2000)
    return other if other != unit and _fits(texts, other) else None


def times(texts: pl.Series, units: str | Sequence[str], day_zero: date | None = None) -> pl.Series:
    """The values as times without a zone: those with an offset in UTC, others as they are written; null where bad.

    Args:
        texts: The values.
        units: Units or patterns, tried in turn.
        day_zero: Of the unit ``day``.
    """
    import polars as pl

    found = pl.Series([None] * texts.len(), dtype=pl.Datetime("us"))
    for unit in [units] if isinstance(units, str) else units:
        if found.null_count() == 0:
            break
        found = pl.select(pl.coalesce(found, _times(texts, unit, day_zero))).to_series()
    return found


def _times(texts: pl.Series, unit: str, day_zero: date | None) -> pl.Series:
    import polars as pl

    texts = texts.str.strip_chars()
    if unit in PER_SECOND or unit == "day":
        numbers = texts.cast(pl.Float64, strict=False)
        if unit == "day":
            begin = datetime.combine(day_zero or date(1970, 1, 1), datetime.min.time())
            return begin + (numbers * 86_400_000_000).round().cast(pl.Int64, strict=False).cast(pl.Duration("us"))
        micros = (numbers * (1_000_000 / PER_SECOND[unit])).round()
        return micros.set(micros.abs() > 2.5e17, None).cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
    if unit in ("iso", "timestamp"):
        return _iso(texts)
    if begins_with_weekday(unit):
        texts, unit = texts.str.replace(WEEKDAY, ""), without_weekday(unit)
    pattern = chrono(unit)
    if "%H" not in pattern and "%I" not in pattern:
        return texts.str.to_date(pattern, strict=False).cast(pl.Datetime("us"))
    if "z" in pattern:
        return texts.str.to_datetime(pattern, strict=False, time_zone="UTC").dt.replace_time_zone(None).cast(
            pl.Datetime("us")
        )  # fmt: skip
    return texts.str.to_datetime(pattern, strict=False, time_unit="us")


def _iso(texts: pl.Series) -> pl.Series:
    import polars as pl

    frame = texts.alias("text").to_frame()
    part = {i: pl.col("text").str.extract(ISO, i) for i in (1, 2, 3, 4)}
    clock = (
        pl.when(part[2].str.len_chars() == 5).then(part[2] + ":00").otherwise(pl.coalesce(part[2], pl.lit("00:00:00")))
    )
    local = (part[1] + " " + clock).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    micros = pl.coalesce(part[3].str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64, strict=False), pl.lit(0))
    offset = part[4].str.replace(":", "")
    hours = pl.coalesce(offset.str.slice(1, 2).cast(pl.Int64, strict=False), pl.lit(0))
    minutes = pl.coalesce(offset.str.slice(3, 2).cast(pl.Int64, strict=False), pl.lit(0))
    sign = pl.when(offset.str.starts_with("-")).then(-1).otherwise(1)
    east = pl.when(offset.str.contains(r"^[+-]")).then(sign * (hours * 60 + minutes)).otherwise(0)
    return frame.select(
        local + pl.duration(microseconds=micros, time_unit="us") - pl.duration(minutes=east, time_unit="us")
    ).to_series()


def chrono(pattern: str) -> str:
    """A date-time pattern of Spark in the signs of C and polars."""
    written, i = "", 0
    while i < len(pattern):
        if pattern[i] == "'":
            end = pattern.find("'", i + 1)
            end = end if end > 0 else len(pattern)
            written += pattern[i + 1 : end]
            i = end + 1
            continue
        if not pattern[i].isalpha():
            written += pattern[i]
            i += 1
            continue
        n = next(k for k in range(len(pattern) - i, 0, -1) if pattern[i : i + k] == pattern[i] * k)
        written += TOKENS.get(pattern[i : i + n], "%%")
        i += n
    return written.replace(".%3f", "%.3f").replace(".%6f", "%.6f")


def _fits(texts: pl.Series, unit: str) -> bool:
    latest = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    found = _times(texts, unit, None)
    good = ((found >= EARLIEST) & (found <= latest)).fill_null(value=False)
    exact = unit in (*TIME_UNITS, "iso") or unit.count("yyyy") == 1 or _two_digits(texts, unit)
    return share(good) >= 0.95 and exact


def _two_digits(texts: pl.Series, unit: str) -> bool:
    return not texts.str.contains(r"\d{4}").any()
