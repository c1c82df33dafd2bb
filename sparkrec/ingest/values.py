"""The values of raw rows as texts: ids, numbers, and what stands for nothing. Column expressions only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sparkrec.settings.formats import Attribute, Field, LogFormat
from sparkrec.settings.ids import BLANKS, EXACT, EXPONENT

JSON_NAN = '"NaN"'  # what Spark makes of a NaN without quotes
JSON_NUMBER = r"^-?\d+\.(0+|\d+E\d+)$"  # as Spark writes a double of a JSON line


@dataclass(frozen=True)
class Notation:
    """How numbers are written.

    Attributes:
        decimal: What stands before the decimals.
        thousands: What may stand between thousands; a blank is any blank.
    """

    decimal: str = "."
    thousands: str = ""

    @staticmethod
    def of(fmt: LogFormat) -> Notation:
        """As a log's are."""
        return Notation(fmt.decimal, fmt.thousands)

    def plain(self, text: Column) -> Column:
        """A number's text as programs write it; null of a text that is not written like this."""
        point = re.escape(self.decimal)
        between = f"[{BLANKS}]" if self.thousands == " " else re.escape(self.thousands)
        grouped = rf"\d{{1,3}}(?:{between}\d{{2,3}})*{between}\d{{3}}|" if self.thousands else ""
        text = F.btrim(text, F.lit(BLANKS))
        fits = text.rlike(rf"^[+-]?(?:{grouped}\d+|(?={point}\d))(?:{point}\d*)?(?:[eE][+-]?\d+)?$")
        digits = F.regexp_replace(text, between, "") if self.thousands else text
        return F.when(fits, F.replace(digits, F.lit(self.decimal), F.lit(".")))


PLAIN = Notation()


def number(text: Column, written: Notation = PLAIN) -> Column:
    """A finite double, or null."""
    value = (text if written == PLAIN else written.plain(text)).try_cast("double")
    return F.when(~F.isnan(value) & (F.abs(value) != float("inf")), value)


def plain(column: Column, type_: str) -> Column:
    """A column of a typed file as text: whole numbers as integers whatever their type, NaN as null."""
    if type_ in EXACT:
        return F.when(~F.isnan(column), F.coalesce(_whole(column, EXACT[type_]), column.cast("string")))
    if type_.startswith("decimal"):
        return F.when(column == F.floor(column), F.floor(column).cast("string")).otherwise(column.cast("string"))
    return column.cast("string")


def json_plain(value: Column, line: Column, name: str) -> Column:
    """A field of a JSON line as text: a number that is whole, but was written as 17850.0, as an integer; NaN as null.

    Args:
        value: The field as Spark reads it as a string, 1.2345678E7 for a number of that size.
        line: The line: only there a number and a text in quotes differ.
        name: The field's name.
    """
    whole = _whole(value.try_cast("double"), EXACT["double"])
    said = F.when(value != JSON_NAN, value)
    return F.when(json_number(value, line, name), F.coalesce(whole, value)).otherwise(said)


def json_number(value: Column, line: Column, name: str) -> Column:
    """Whether a field of a JSON line is a number, written with a point or that large."""
    written = r"\Q" + json.dumps(name, ensure_ascii=False) + r"\E\s*:\s*-?\d"
    return F.coalesce(value.rlike(JSON_NUMBER), F.lit(False)) & line.rlike(written)


def inexact(column: Column, type_: str) -> Column:
    """Whether a number is so large that its type no longer holds every whole number: as an id it may be another's."""
    return F.coalesce(F.abs(column) > EXACT[type_], F.lit(False)) & ~F.isnan(column)


def pick(raw: DataFrame, field: Field | Attribute | None, nulls: Sequence[str]) -> Column:
    """The text of a field: the first of its columns that has one, texts that stand for nothing made null."""
    present = [F.col(f"`{name}`").cast("string") for name in (field.columns if field else ()) if name in raw.columns]
    values = [F.when(~_trimmed(c).isin(["", *nulls]), c) for c in present]
    if not values:
        return F.lit(None).cast("string")
    if isinstance(field, Field) and field.join is not None:
        joined = F.concat_ws(field.join, *values)
        return F.when(joined != "", joined)
    return F.coalesce(*values)


def pick_id(raw: DataFrame, field: Field | None, nulls: Sequence[str]) -> Column:
    """The id in a field, in the one spelling that the format's ``normalize`` gives it; see ``settings.ids.spelt``."""
    value = pick(raw, field, nulls)
    steps = field.normalize if field else ()
    if "trim" in steps:
        value = _trimmed(value)
    if "nfc" in steps:
        value = F.when(value.rlike("[^\\x00-\\x7F]"), _composed(value)).otherwise(value)
    if "integer" in steps:
        value = _integer(value)
    if "upper" in steps or "lower" in steps:
        value = F.upper(value) if "upper" in steps else F.lower(value)
    return value


def _trimmed(text: Column) -> Column:
    return F.btrim(text, F.lit(BLANKS))


def _composed(text: Column) -> Column:
    """Unicode's form NFC, by the ICU that comes with Spark: Spark has no function of its own for it."""
    name, method = F.lit("com.ibm.icu.text.Normalizer"), F.lit("compose")
    return F.java_method(name, method, F.coalesce(text, F.lit("")), F.lit(False))


def _whole(number: Column, most: int) -> Column:
    """A whole number of at most this size as an integer's text, else null."""
    whole = F.floor(number)
    return F.when((whole == number) & (F.abs(number) <= most), whole.cast("bigint").cast("string"))


def _integer(text: Column) -> Column:
    """17850.0 and 1.785E4 as 17850; any other text, and a number too large to be exact, as it is."""
    exact = F.coalesce(_whole(text.try_cast("double"), EXACT["double"]), text)
    return F.when(text.rlike(EXPONENT), exact).otherwise(F.regexp_replace(text, r"^(-?\d+)\.0+$", "$1"))
