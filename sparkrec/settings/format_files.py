"""Reads log formats: ``conf/formats/<name>.yaml``, or any YAML file, into a checked ``LogFormat``."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from dataclasses import replace
from datetime import date, datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sparkrec.errors import UserError
from sparkrec.settings.config import conf_dir
from sparkrec.settings.formats import (
    ATTRIBUTE_TYPES,
    CHECKED_FIELDS,
    EQUAL_ROWS,
    EXPLODE_KINDS,
    FEATURE_KINDS,
    NORMALIZATIONS,
    NUMBER_UNITS,
    OTHER_EVENTS,
    PATTERN,
    READER_KINDS,
    ROW,
    SPAN_UNITS,
    TIME_UNITS,
    AttributeFile,
    Field,
    LogFormat,
    Reader,
    has_offset,
)
from sparkrec.zones import zone_of


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
