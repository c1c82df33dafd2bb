"""Log formats: what raw logs look like, declared in ``conf/formats/<name>.yaml`` and never in code.

The YAML mirrors :class:`LogFormat`: its keys are the fields of the dataclasses below, and an unknown key is an
error. Where a tuple of names is expected a single name will do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

READER_KINDS = ("jsonl", "python", "csv", "parquet", "delta")
FEATURE_KINDS = ("categorical", "multi", "bucket")
ATTRIBUTE_TYPES = ("string", "double", "int", "array<float>")
NUMBER_UNITS = ("s", "ms", "us", "ns", "day")  # of times
TIME_UNITS = (*NUMBER_UNITS, "iso", "timestamp")
SPAN_UNITS = ("us", "ms", "s", "min", "h", "day", "HHMM", "HH:mm", "HH:mm:ss")
PATTERN = re.compile(r"(?:'[^']*'|[GyMLdEQqhHkKmsSaVzOXxZDF]|[^A-Za-z'])+")  # letters that Spark's patterns know
WEEKDAY = r"^\s*\p{L}+\.?,?\s+"  # as the texts of a pattern that begins with it do
NORMALIZATIONS = ("none", "trim", "nfc", "integer", "upper", "lower")
ID_NULLS = ("NULL", "null", r"\N", "nan", "NaN", "NaT", "None")  # of MySQL, pandas, Python
CHECKED_FIELDS = ("value", "quantity", "price")
EXPLODE_KINDS = ("structs", "array", "text")
EQUAL_ROWS = ("drop", "keep", "add")
OTHER_EVENTS = ("quarantine", "leave_out")
ROW = "row"  # order: the row's place in its file
# Of text files, by the end of their names; as pyarrow names them, and two of Python's.
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz", ".zip": "zip"}
POSITION, SUFFIX = "position", "suffix"  # of an element: <column>.position, <column>.suffix


@dataclass(frozen=True)
class Feature:
    """A categorical feature of items or users, taken from an attribute of the same name.

    ``categorical``: the value itself. ``multi``: the values between ``separator``, the first ``max_values`` of them.
    ``bucket``: a number, in log2 buckets.
    """

    name: str
    kind: str = "categorical"
    separator: str = "|"
    max_values: int = 8


@dataclass(frozen=True)
class Reader:
    """How files of one kind are read; a file goes to the first reader with a glob that its name matches.

    A glob matches a name with or without the ending of a compression: ``*.csv`` takes ``x.csv.gz`` too; one that begins
    with ``!`` leaves files out. Of a ``.zip`` the members are matched, each by its own name.
    """

    kind: str  # jsonl | python (lines of JSON, or of dicts as Python writes them) | csv | parquet | delta
    files: tuple[str, ...] = ("*",)  # globs on the file's name
    encoding: str = "utf-8"  # csv, jsonl, python: a name that Java knows; a byte order mark counts before it
    separator: str = ","  # csv: one character or several
    header: bool = True  # csv: the first row names the columns
    columns: tuple[str, ...] = ()  # csv without a header: the columns in order
    quote: str = '"'  # csv: empty for none; a quote inside a quoted field is doubled
    comment: str = ""  # csv: lines that begin with this character are no rows
    multi_line: bool = False  # csv: quoted fields may hold line ends; such a file is read by one task
    max_record_lines: int = 5  # csv with multi_line: a record of more is quarantined, as a stray quote makes them
    max_field_chars: int = 1_000_000  # csv: a longer field means an unclosed quote

    @property
    def is_text(self) -> bool:
        """Whether its files are lines of text, with an encoding and perhaps a compression of the whole file."""
        return self.kind in ("jsonl", "python", "csv")

    def takes(self, name: str) -> bool:
        """Whether a file of this name is for it, its folders and what other readers take apart."""
        base, inner = name.rsplit("/", 1)[-1], unpacked_name(name)
        names = (base, inner) if self.is_text else (base,)
        takes = [glob for glob in self.files if not glob.startswith("!")] or ["*"]
        leaves = [glob[1:] for glob in self.files if glob.startswith("!")]
        within, without = (any(fnmatchcase(n, glob) for n in names for glob in some) for some in (takes, leaves))
        return within and not without


@dataclass(frozen=True)
class Span:
    """A span of time in a column of its own: the milliseconds of a day, or the time of the day of a date."""

    columns: tuple[str, ...]  # the first one that a file has
    unit: str  # us, ms, s, min, h, day (numbers), HHMM (930 is 09:30), HH:mm, HH:mm:ss


@dataclass(frozen=True)
class Cumulative:
    """A column that holds the time since the row before: its values are summed from ``day_zero``.

    Of rows with equal ``by`` and ``order`` the span counts once; the first one's may be missing.
    """

    by: tuple[str, ...]  # the columns that must be equal for a row to be "before": the user
    order: tuple[str, ...]  # the number that orders these rows: the first column that a file has


@dataclass(frozen=True)
class Field:
    """Where a column of ``events`` comes from."""

    # Names in the log; the first one that a file has. Folders as dt=2024-01-01/event=click/ are columns of their files.
    columns: tuple[str, ...]
    required: bool = True  # the column must be there, and a row without a value is quarantined
    # Ids, any of: trim (blanks at both ends) | nfc (é is one character) | integer (17850.0 and 1.785E4 are written for
    # 17850) | upper | lower. An attribute file's id that says nothing is taken as the log's.
    normalize: tuple[str, ...] = ()
    # ts: s, ms, us, ns, iso, day, timestamp, or a date-time pattern of Spark, which may begin with a weekday (EEE);
    # several are tried in turn. See LogFormat.timezone.
    unit: tuple[str, ...] = ()
    day_zero: date | None = None  # ts: the day 0 of unit day, and of cumulative
    plus: tuple[Span, ...] = ()  # ts: added to it, on the clocks of the log's zone
    cumulative: Cumulative | None = None  # ts: the value is the time since the row before
    join: str | None = None  # text, ts: join all of the columns with this, instead of taking the first


@dataclass(frozen=True)
class Explode:
    """Each element of a column becomes a row, with the other fields of the row that it is in.

    Columns of the elements, here of a column ``events``: ``events.<field>`` of structs, ``events`` of any others,
    ``events.position`` (0, 1, … in its row) and, with ``suffix``, ``events.suffix``.
    """

    column: str
    kind: str = "structs"  # structs: of named fields; array: of texts or numbers; text: one text, with separator
    separator: str = " "  # text: what stands between elements
    suffix: str = ""  # array, text: a regular expression with a group: what fits is taken off, the group is a column
    keep_empty: bool = False  # a row without elements is a row of the log's own; else it is quarantined


@dataclass(frozen=True)
class Join:
    """Further files of the log, whose rows give columns to its rows: each row of the log has one of theirs."""

    readers: tuple[Reader, ...]  # a file that fits them is none of the log's own
    key: tuple[str, ...]  # columns of the log that tell which row
    their_key: tuple[str, ...] = ()  # the same columns in these files, where they are named otherwise


@dataclass(frozen=True)
class EventRule:
    """The event type of rows whose ``column`` fits; the first rule that fits decides."""

    type: str
    column: str
    starts_with: str | None = None
    equals: str | None = None
    below: float | None = None


@dataclass(frozen=True)
class EventType:
    """How a row gets its event type: the rules, else the column, else the default."""

    default: str
    columns: tuple[str, ...] = ()  # names of the column that holds the type, where the log has one
    rules: tuple[EventRule, ...] = ()


@dataclass(frozen=True)
class Check:
    """Bounds of a number; rows outside are quarantined, but for events of the types in ``unless``."""

    field: str  # value | quantity | price
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    unless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribute:
    """An attribute column of ``items`` or ``users``."""

    name: str
    columns: tuple[str, ...]  # names in the log or attribute file; the first one that a file has
    type: str = "string"  # string | double | int | array<float> (also written as JSON)
    extract: str = ""  # a regular expression with one group, applied to the value


@dataclass(frozen=True)
class AttributeFile:
    """The attribute file beside a log (``logs.items_path``, ``logs.users_path``)."""

    readers: tuple[Reader, ...]
    id: Field
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class LogFormat:
    """A declared log format.

    Attributes:
        name: Its name.
        readers: How its files are read.
        item: Item id. With ``ts`` the only column that every row must have.
        ts: Time of the event.
        event_type: How a row gets its event type.
        event_weights: Weight of an interaction by event type; 0 or absent: not an interaction.
        impression_events: Event types of what was shown and not taken: kept in ``events``, and nowhere else.
        other_events: Rows of other event types: ``quarantine``, or ``leave_out``, with rows without an item: they go
            to quarantine as ``left out: <type>`` and do not count for ``ingest.max_quarantine_share``.
        explode: A column whose elements are the log's rows.
        join: Further files of the log.
        order: The column (the first of these that a file has) whose whole number decides between equal times; ``row``:
            the row's place in its file. Without one they have no order, and are drawn.
        duplicates: What rows of one file are that are equal in all columns of ``events``: ``drop``: one too many;
            ``keep``: each an event; ``add``: one event, of the sum of their quantities (which may differ). None: see
            :meth:`equal_rows`. Of rows that several files have it is one file's that count.
        event_id: The id of an event; where a row has one, rows of the same id are duplicates, and no others are.
        purchase_events: Event types that make baskets.
        session_events: Event types that make sessions.
        timezone: The zone of times that do not name one: texts without an offset, dates, and Parquet's timestamps
            that are not adjusted to UTC; numbers count from 1970 in UTC. A time that a zone has twice, in the hour
            after the clocks are set back, is taken as the first; one that it leaves out is moved by the gap: with
            Europe/London 01:30 of a March night is 02:30 of summer time.
        decimal: What stands before the decimals of numbers in CSV: with ``","`` 12,5.
        thousands: What may stand between their thousands: with ``"."`` 1.299,50 and 1299,50; a blank is any blank.
        missing_user: ``keep`` a row without a user as an anonymous event, or ``quarantine`` it.
        nulls: Texts that stand for a missing value.
        id_nulls: Texts that stand for one besides, where an id is expected.
        recommend_seen: Whether lists may hold items that the user has interacted with.
        item_attributes, user_attributes: Attributes found in the rows of the log; the latest one counts.
        items_file, users_file: Attribute files.
        item_features, user_features: Features of the two-tower model, each from the attribute of its name.
        title: The attribute of ``items`` that is shown to people.
        defaults: Configuration defaults of this format.
    """

    name: str
    readers: tuple[Reader, ...]
    item: Field
    ts: Field
    event_type: EventType
    event_weights: dict[str, float]
    user: Field | None = None
    value: Field | None = None
    quantity: Field | None = None
    price: Field | None = None
    text: Field | None = None
    session: Field | None = None
    basket: Field | None = None
    purchase_events: tuple[str, ...] = ()
    session_events: tuple[str, ...] = ()
    timezone: str = "UTC"
    decimal: str = "."
    thousands: str = ""
    impression_events: tuple[str, ...] = ()
    other_events: str = "quarantine"
    explode: Explode | None = None
    join: tuple[Join, ...] = ()
    order: tuple[str, ...] = ()
    duplicates: str | None = None
    event_id: Field | None = None
    missing_user: str = "keep"
    nulls: tuple[str, ...] = ("",)
    id_nulls: tuple[str, ...] = ID_NULLS
    checks: tuple[Check, ...] = ()
    recommend_seen: bool = False
    item_attributes: tuple[Attribute, ...] = ()
    user_attributes: tuple[Attribute, ...] = ()
    items_file: AttributeFile | None = None
    users_file: AttributeFile | None = None
    item_features: tuple[Feature, ...] = ()
    user_features: tuple[Feature, ...] = ()
    title: str | None = None
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """All columns of the log that it names, each once."""
        fields = [self.user, self.item, self.ts, self.value, self.quantity, self.price, self.text]
        names = [name for f in (*fields, self.session, self.basket, self.event_id) if f for name in f.columns]
        names += [name for a in self.item_attributes + self.user_attributes for name in a.columns]
        names += [name for span in self.ts.plus for name in span.columns]
        names += [*self.ts.cumulative.by, *self.ts.cumulative.order] if self.ts.cumulative else []
        names += [] if self.by_row else self.order
        names += [name for join in self.join for name in join.key]
        names += [*self.event_type.columns, *(rule.column for rule in self.event_type.rules)]
        return list(dict.fromkeys(names))

    @property
    def event_types(self) -> list[str]:
        """All event types that rows may have."""
        return [*self.event_weights, *(name for name in self.impression_events if name not in self.event_weights)]

    @property
    def by_row(self) -> bool:
        """Whether the row's place in its file decides between equal times."""
        return self.order == (ROW,)

    @property
    def equal_rows(self) -> str:
        """What equal rows of a file are: ``drop``, ``keep`` or ``add``.

        Where times are no more than dates, equal rows are what two pieces bought on one day look like: to drop one
        would lose a purchase, and a file that is delivered twice is found all the same. With a time of day they are one
        event written twice more often than two.
        """
        dates = self.event_id is None and is_date(self.ts)
        return self.duplicates or ("keep" if dates else "drop")

    def item_columns(self) -> dict[str, str]:
        """Attribute columns of ``items``, name to Spark type, those of the log first."""
        return _attribute_columns(self.item_attributes, self.items_file)

    def user_columns(self) -> dict[str, str]:
        """Attribute columns of ``users``, name to Spark type, those of the log first."""
        return _attribute_columns(self.user_attributes, self.users_file)


def compression(name: str) -> str:
    """The ending of a compressed file's name, in small letters; empty where it has none."""
    return next((ending for ending in COMPRESSIONS if name.lower().endswith(ending)), "")


def unpacked_name(name: str) -> str:
    """A file's name without folders and without a compression's ending."""
    base = name.rsplit("/", 1)[-1]
    return base[: len(base) - len(compression(base))]


def has_offset(unit: str) -> bool:
    """Whether a date-time pattern holds the time zone or the offset."""
    return unit not in (*TIME_UNITS, *SPAN_UNITS) and bool(re.search("[VzOXxZ]", re.sub("'[^']*'", "", unit)))


def begins_with_weekday(unit: str) -> bool:
    """Whether a date-time pattern begins with the day of the week: ``EEE MMM d HH:mm:ss Z yyyy``."""
    return unit.startswith("E")


def without_weekday(unit: str) -> str:
    """The rest of a date-time pattern that begins with the day of the week."""
    return re.sub(r"^E+\.?,?\s+", "", unit)


def is_date(ts: Field) -> bool:
    """Whether times are declared as no more than dates."""
    patterns = [re.sub("'[^']*'", "", unit) for unit in ts.unit if unit not in TIME_UNITS]
    clocks = any(unit != "day" for unit in ts.unit if unit in TIME_UNITS) or re.search(
        "[hHkKmsSnNA]", "".join(patterns)
    )
    return not clocks and not ts.plus


def _attribute_columns(own: tuple[Attribute, ...], beside: AttributeFile | None) -> dict[str, str]:
    attributes = own + (beside.attributes if beside else ())
    return {a.name: a.type for a in attributes}
