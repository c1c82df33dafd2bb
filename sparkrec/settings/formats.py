"""Log formats: what raw logs look like, declared in ``conf/formats/<name>.yaml`` and never in code.

The YAML mirrors :class:`LogFormat`: its keys are the fields of the dataclasses below, and an unknown key is an
error. Where a tuple of names is expected a single name will do.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from fnmatch import fnmatchcase
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sparkrec.errors import UserError
from sparkrec.settings.config import conf_dir
from sparkrec.zones import zone_of

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


def format_names() -> list[str]:
    """Names of the shipped formats."""
    files = (conf_dir() / "formats").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_format(name: str) -> LogFormat:
    """Loads a format by name from ``conf/formats``, or from the path of a YAML file.

    Raises:
        UserError: No such format, or its YAML does not declare one properly.
    """
    path = _format_path(name)
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError("log format is not valid YAML", where=str(path), fix=str(error)) from error
    if not isinstance(data, dict):
        raise UserError("log format must be a mapping", where=str(path), fix="see conf/formats for examples")
    return format_of(data, path.name)


def format_of(declared: dict[str, Any], where: str) -> LogFormat:
    """The format that a mapping declares.

    Args:
        declared: As the YAML has it.
        where: The file's name, which is the format's where it does not name itself.

    Raises:
        UserError: It does not declare one properly.
    """
    fmt = _same_ids(_build(LogFormat, {"name": where.rpartition(".")[0], **declared}, where))
    _validate(fmt, where)
    return fmt


def _validate_ts(ts: Field, timezone: str, where: str) -> None:
    units, at = list(ts.unit), f"{where}: ts.unit"
    allowed = f"one of {', '.join(TIME_UNITS)} or a date-time pattern of Spark"
    known = [unit in TIME_UNITS or bool(PATTERN.fullmatch(unit)) for unit in units]
    if ts.cumulative:
        spans = ", ".join(SPAN_UNITS)
        _require(len(units) == 1 and units[0] in SPAN_UNITS, f"one of {spans}, as it is cumulative", units, at)
    else:
        _require(bool(units) and all(known), allowed, units[0] if len(units) == 1 else units, at)
    numbers = [unit for unit in units if unit in NUMBER_UNITS]
    _require(len(numbers) <= 1, "one unit of numbers at most: the first would read them all", units, at)
    for unit in units:
        optional = has_offset(unit) and "[" in unit and timezone != "UTC"
        _require(not optional, "either with an offset or without, under a timezone", unit, at)
    counted = "day" in units or ts.cumulative is not None
    what = "given with unit: day and cumulative" if counted else "left out: no unit counts from it"
    _require(counted == (ts.day_zero is not None), what, ts.day_zero, f"{where}: ts.day_zero")
    for span in ts.plus:
        _require(span.unit in SPAN_UNITS, f"one of {', '.join(SPAN_UNITS)}", span.unit, f"{where}: ts.plus.unit")


def _validate_notation(fmt: LogFormat, readers: list[Reader], where: str) -> None:
    signs = [("decimal", fmt.decimal, 1), ("thousands", fmt.thousands, 0)]
    for key, sign, least in signs:
        fits = least <= len(sign) <= 1 and not re.match(r"[\w+-]", sign)
        _require(fits, "one character that is no part of a number", sign, f"{where}: {key}")
    _require(fmt.decimal != fmt.thousands, "another one than decimal", fmt.thousands, f"{where}: thousands")
    others = [reader.kind for reader in readers if reader.kind != "csv"]
    plain = (fmt.decimal, fmt.thousands) == (".", "")
    _require(plain or not others, "left as it is with other readers than csv", fmt.decimal, f"{where}: decimal")


def _same_ids(fmt: LogFormat) -> LogFormat:
    """Lets the ids of attribute files be spelt as the log's where they do not say how."""

    def alike(file: AttributeFile | None, own: Field | None) -> AttributeFile | None:
        if file is None or own is None or file.id.normalize:
            return file
        return replace(file, id=replace(file.id, normalize=own.normalize))

    return replace(fmt, items_file=alike(fmt.items_file, fmt.item), users_file=alike(fmt.users_file, fmt.user))


def _format_path(name: str) -> Traversable:
    if name.endswith((".yaml", ".yml")):
        path: Traversable = Path(name)
    elif name in format_names():
        path = conf_dir() / "formats" / f"{name}.yaml"
    else:
        known = ", ".join(format_names())
        raise UserError("unknown log format", where=f"logs.format={name}", fix=f"one of {known}, or a path to a .yaml")
    if not path.is_file():
        raise UserError("no such log format file", where=str(path), fix=f"or one of {', '.join(format_names())}")
    return path


def _attribute_columns(own: tuple[Attribute, ...], beside: AttributeFile | None) -> dict[str, str]:
    attributes = own + (beside.attributes if beside else ())
    return {a.name: a.type for a in attributes}


def _build(kind: Any, data: Any, where: str) -> Any:
    """Builds a value of a declared type from plain YAML data, strictly."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return data
    if origin in (typing.Union, types.UnionType):
        return None if data is None else _build(next(a for a in arguments if a is not type(None)), data, where)
    if origin is tuple:
        values = data if isinstance(data, list) else [data]
        return tuple(_build(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(values))
    if origin is dict:
        _require(isinstance(data, dict), "a mapping", data, where)
        return {str(k): _build(arguments[1], v, f"{where}.{k}") for k, v in data.items()}
    if kind is date:
        _require(isinstance(data, date) and not isinstance(data, datetime), "a date, YYYY-MM-DD", data, where)
        return data
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, data, where)
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    _require(isinstance(data, kind) and not (kind is int and isinstance(data, bool)), kind.__name__, data, where)
    return data


def _build_dataclass(kind: Any, data: Any, where: str) -> Any:
    _require(isinstance(data, dict), "a mapping", data, where)
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in hints:
            fix = f"keys here: {', '.join(hints)}"
            raise UserError("unknown key in log format", where=f"{key} in {where}", fix=fix)
    for f in dataclasses.fields(kind):
        optional = f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING
        if f.name not in data and not optional:
            raise UserError("log format lacks a key", where=f"{f.name} in {where}", fix="see docs/formats.md")
    return kind(**{key: _build(hints[key], value, f"{where}: {key}") for key, value in data.items()})


def _require(condition: bool, expected: str, data: Any, where: str) -> None:
    if not condition:
        raise UserError("wrong value in log format", where=f"{where} = {data!r}", fix=f"must be {expected}")


def _validate(fmt: LogFormat, where: str) -> None:
    def one_of(value: str, allowed: typing.Iterable[str], key: str) -> None:
        allowed = list(allowed)
        _require(value in allowed, f"one of {', '.join(allowed)}", value, f"{where}: {key}")

    files = [f for f in (fmt.items_file, fmt.users_file) if f]
    beside = [f.readers for f in files] + [join.readers for join in fmt.join]
    for reader in (*fmt.readers, *(reader for readers in beside for reader in readers)):
        one_of(reader.kind, READER_KINDS, "readers.kind")
        headed = reader.kind != "csv" or reader.header or bool(reader.columns)
        _require(headed, "given for a CSV without a header", reader.columns, f"{where}: readers.columns")
        _require(reader.max_record_lines >= 1, "1 or more", reader.max_record_lines, f"{where}: max_record_lines")
        for key, sign in (("quote", reader.quote), ("comment", reader.comment)):
            _require(len(sign.encode()) <= 1, "one character of ASCII or empty", sign, f"{where}: readers.{key}")
    zone_of(fmt.timezone)
    _validate_ts(fmt.ts, fmt.timezone, where)
    _validate_notation(fmt, [*fmt.readers, *(r for f in files for r in f.readers)], where)
    one_of(fmt.missing_user, ("keep", "quarantine"), "missing_user")
    _validate_rows(fmt, where)
    ids = [fmt.user, fmt.item, fmt.session, fmt.basket, fmt.event_id, *(f.id for f in files)]
    for steps in (f.normalize for f in ids if f):
        for step in steps:
            one_of(step, NORMALIZATIONS, "normalize")
        _require(not {"upper", "lower"} <= set(steps), "either upper or lower", list(steps), f"{where}: normalize")
    for event in fmt.purchase_events + fmt.session_events:
        one_of(event, fmt.event_weights, "event types must be in event_weights;")
    given = (fmt.event_type.default, *(rule.type for rule in fmt.event_type.rules))
    for event in given if fmt.other_events == "quarantine" else ():
        one_of(event, fmt.event_types, "event types must be in event_weights;")
    for rule in fmt.event_type.rules:
        tests = [t for t in (rule.starts_with, rule.equals, rule.below) if t is not None]
        _require(len(tests) == 1, "one of starts_with, equals, below", rule.type, f"{where}: event_type.rules")
    for check in fmt.checks:
        one_of(check.field, [f for f in CHECKED_FIELDS if getattr(fmt, f)], "checks.field")
    for columns, features in ((fmt.item_columns(), fmt.item_features), (fmt.user_columns(), fmt.user_features)):
        for type_ in columns.values():
            one_of(type_, ATTRIBUTE_TYPES, "attributes.type")
        for feature in features:
            one_of(feature.kind, FEATURE_KINDS, "features.kind")
            one_of(feature.name, columns, "a feature must be a declared attribute;")
    if fmt.title is not None:
        one_of(fmt.title, fmt.item_columns(), "title must be an attribute of items;")


def _validate_rows(fmt: LogFormat, where: str) -> None:
    """What a format says of rows: of parts of them, of others that they need, of equal ones."""

    def one_of(value: str, allowed: tuple[str, ...], key: str) -> None:
        _require(value in allowed, f"one of {', '.join(allowed)}", value, f"{where}: {key}")

    one_of(fmt.other_events, OTHER_EVENTS, "other_events")
    one_of(fmt.equal_rows, EQUAL_ROWS, "duplicates")
    by_id = fmt.event_id is None or fmt.equal_rows == "drop"
    _require(by_id, "drop, where an event_id tells events apart", fmt.duplicates, f"{where}: duplicates")
    for event in fmt.impression_events:
        taken = fmt.event_weights.get(event, 0.0) or event in fmt.purchase_events + fmt.session_events
        _require(not taken, "of no weight, no purchase and in no session", event, f"{where}: impression_events")
    _require(ROW not in fmt.order or fmt.by_row, "row alone, or columns", list(fmt.order), f"{where}: order")
    for join in fmt.join:
        same = not join.their_key or len(join.their_key) == len(join.key)
        _require(same and bool(join.key), "as many columns as key", list(join.their_key), f"{where}: join.their_key")
    if fmt.explode is None:
        return
    explode = fmt.explode
    one_of(explode.kind, EXPLODE_KINDS, "explode.kind")
    csv_reader = any(r.kind == "csv" for r in fmt.readers) and explode.kind != "text"
    _require(not csv_reader, "text, for a CSV", explode.kind, f"{where}: explode.kind")
    _require(bool(explode.separator), "something", explode.separator, f"{where}: explode.separator")
    _require(not explode.suffix or explode.kind != "structs", "empty, of structs", explode.suffix, f"{where}: suffix")
    if explode.suffix:
        try:
            groups = re.compile(explode.suffix).groups
        except re.error:
            groups = 0
        _require(groups == 1, "a regular expression with one group", explode.suffix, f"{where}: explode.suffix")
