"""Raw log files → rows of text: one DataFrame for each group of files that look alike.

What a raw DataFrame has is said in :mod:`sparkrec.ingest.raw`.

Bytes that do not fit the encoding must not become U+FFFD without a word. So CSV is read as ISO-8859-1, where each
character is a byte, and turned back into bytes, or through the table of an encoding that has a byte for each
character; a faulty row's ``_raw`` stays ISO-8859-1, which loses nothing. Files of other encodings come as copies in
UTF-8 (:mod:`sparkrec.ingest.unpack`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StringType, StructField, StructType

from sparkrec.errors import UserError
from sparkrec.ingest.elements import ELEMENTS, column_names, element_fields, exploded, own_names, split_text
from sparkrec.ingest.hadoop import HEAD, MISFIT, UTF_8, Encoding, FileStatus, FileSystem, java_message, normal_uri
from sparkrec.ingest.literals import literal_as_json
from sparkrec.ingest.nested import JsonText, json_schema, json_texts
from sparkrec.ingest.raw import BLOCK, FAULT, INEXACT, NOT_UTF8, RAW, ROW, URI, require_columns
from sparkrec.ingest.typed import Typed, typed_rows
from sparkrec.ingest.unpack import DAMAGED
from sparkrec.ingest.values import inexact, json_number, json_plain
from sparkrec.settings.formats import Explode, Reader
from sparkrec.storage.files import literal_path

MALFORMED_JSON, FIELD_COUNT = "malformed JSON", "wrong number of fields"
MALFORMED_PYTHON = "malformed Python literal"
UNCLOSED = "wrong number of fields over several lines (unclosed quote?)"
TOO_MANY_LINES = "a record of more than {} lines (stray quote?)"
_CORRUPT, _BYTES, _BOM, _UNKNOWN = "_corrupt", "ISO-8859-1", "\ufeff", "\ufffd"


@dataclass(frozen=True)
class Group:
    """Files that are read by one scan: same reader and encoding, same header or schema, same columns of the path."""

    reader: Reader
    encoding: Encoding
    columns: tuple[str, ...]  # csv: the columns in order; parquet: the schema, as one text
    path_columns: tuple[str, ...]
    files: tuple[FileStatus, ...]


def group_files(
    fs: FileSystem,
    files: Iterable[tuple[FileStatus, Reader]],
    required: Sequence[tuple[str, ...]],
    names: Iterable[str] = (),
    explode: Explode | None = None,
) -> list[Group]:
    """Looks at the beginning of each file and groups those that can be read together; files of nothing are in none.

    Args:
        fs: File system.
        files: Files with their readers.
        required: For each required column the names it may have.
        names: Log columns that the format names; folders ``name=value`` stand for those that a file lacks.
        explode: The column whose elements are the rows.

    Raises:
        UserError: A file is unreadable, or lacks a required column.
    """
    files, named = list(files), set(names)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: _columns(fs, *pair), files))
    groups: dict[tuple[Reader, Encoding, tuple[str, ...], tuple[str, ...]], list[FileStatus]] = {}
    for (file, reader), columns in zip(files, found, strict=True):
        if columns is None:
            continue
        folders = tuple(sorted(path_columns(file.name) & named)) if reader.kind != "delta" else ()
        if reader.kind == "csv":
            require_columns("log file", file.path, column_names(explode, (*columns, *folders)), required)
        groups.setdefault((reader, file.encoding, columns, folders), []).append(file)
    return [Group(*alike, tuple(members)) for alike, members in groups.items()]


def path_columns(name: str) -> set[str]:
    """The columns that folders of a file's path give it, as Hive writes them: ``dt=2024-01-01/event=click/x.csv``."""
    return {unquote(folder.partition("=")[0]) for folder in name.split("/")[:-1] if "=" in folder}


def read_group(
    spark: SparkSession,
    group: Group,
    names: Iterable[str],
    required: Sequence[tuple[str, ...]],
    table_path: str,
    ids: Iterable[str] = (),
    explode: Explode | None = None,
    by_row: bool = False,
) -> DataFrame:
    """The raw rows of a group of files.

    Args:
        spark: Session.
        group: Files.
        names: Log columns that the format names.
        required: For each required column the names it may have.
        table_path: Delta only: the table whose data files they are.
        ids: Those of ``names`` that hold ids: a row is faulty whose number is too large for its type to be exact.
        explode: The column whose elements are the rows.
        by_row: Whether the rows' places are wanted.

    Raises:
        UserError: Parquet files whose schemas do not go together, or unreadable ones.
    """
    names, ids = sorted(set(names)), sorted(set(ids))
    if group.reader.kind in ("jsonl", "python"):
        rows = _read_jsonl(spark, group, names, ids, explode)
    elif group.reader.kind == "csv":
        rows = _read_csv(spark, group, names, explode)
    else:
        rows = _read_columnar(spark, group, names, ids, required, table_path, explode)
    return rows.withColumn(ROW, F.monotonically_increasing_id()) if by_row else rows.drop(BLOCK)


def _columns(fs: FileSystem, file: FileStatus, reader: Reader) -> tuple[str, ...] | None:
    """What tells files apart that cannot be read together; None of a file of nothing."""
    if file.size == 0:
        return None
    if reader.kind == "delta":
        return ()
    try:
        if reader.kind == "parquet":
            return (fs.parquet_schema(file),)
        head = fs.head(file)
    except Exception as error:  # a Java exception of the file system or the codec
        fix = f"{DAMAGED if reader.kind == 'parquet' else ''}{java_message(error)}"
        raise UserError("log file cannot be read", where=file.path, fix=fix) from error
    if not head.removeprefix(_BOM.encode()).strip():
        return None
    if reader.kind != "csv":
        return ()
    table = file.encoding.table
    text = "".join(table[byte] for byte in head) if table else head.decode("utf-8", errors="replace")
    lines = re.split("\r\n|\r|\n", text.removeprefix(_BOM))
    line = next((line for line in lines if line.strip() and not (reader.comment and line[0] == reader.comment)), None)
    if line is None and len(head) == HEAD:
        raise UserError(
            "log file begins with comments alone", where=file.path, fix=f"none but of {HEAD} bytes are read"
        )
    if line is None:
        return None
    return _header(line, reader) if reader.header else reader.columns


def _header(line: str, reader: Reader) -> tuple[str, ...]:
    if len(reader.separator) == 1 and reader.quote:
        return tuple(next(csv.reader([line], delimiter=reader.separator, quotechar=reader.quote)))
    return tuple(line.split(reader.separator))


def _paths(group: Group) -> list[str]:
    return [literal_path((f.copy or f).path) for f in group.files]


def _uri() -> Column:
    return F.regexp_replace(F.col("_metadata.file_path"), "^file:/+", "file:/").alias(URI)


def _block() -> Column:
    return F.col("_metadata.file_block_start").alias(BLOCK)


def _from_path(name: str) -> Column:
    """The value of the innermost folder ``name=value`` of a file, without the escapes of Hive and of a URI."""
    value = F.regexp_extract(F.col("_metadata.file_path"), f"^.*/{re.escape(quote(name))}=([^/]*)/", 1)
    for _ in range(2):
        value = F.coalesce(F.try_url_decode(F.replace(value, F.lit("+"), F.lit("%2B"))), value)
    return F.when(~value.isin("", "__HIVE_DEFAULT_PARTITION__"), value)


def _read_jsonl(
    spark: SparkSession, group: Group, names: Sequence[str], ids: Sequence[str], explode: Explode | None
) -> DataFrame:
    lines = spark.read.option("lineSep", "\n").option("ignoreCorruptFiles", "false").text(_paths(group))
    folders = {name: f"_path_{name}" for name in group.path_columns}
    from_path = [_from_path(name).alias(column) for name, column in folders.items()]
    value, encoding = F.col("value"), group.encoding
    latin = F.decode(value.cast("binary"), _BYTES)
    if encoding.table:
        value, misfit = _through(latin, encoding), _misfit(latin, encoding)
    else:
        misfit = F.contains(value, F.lit(MISFIT)) if encoding.recoded else ~F.is_valid_utf8(value)
    raw = F.when(misfit & F.lit(not encoding.recoded), latin).otherwise(value)
    lines = lines.where(F.trim(F.translate(value, f"\r\t{_BOM}", "")) != "")
    lines = lines.select(value.alias("value"), raw.alias(RAW), misfit.alias("misfit"), _uri(), _block(), *from_path)
    text = F.when(F.startswith("value", F.lit(_BOM)), F.expr("substring(value, 2)")).otherwise(F.col("value"))
    malformed = MALFORMED_JSON
    if group.reader.kind == "python":
        lines = lines.withColumn("as_json", F.udf(literal_as_json, "string")(text))
        text, malformed = F.col("as_json"), MALFORMED_PYTHON
    # from_json stops at the end of the first value; as the only element of an array nothing may follow it.
    own = own_names(explode, names)
    whole = own if explode is None else [*own, explode.column]
    schema = json_schema(whole, {} if explode is None else {explode.column: _json_elements(explode, names)})
    parsed = lines.withColumn(
        "json", F.from_json(F.concat(F.lit("["), text, F.lit("]")), ArrayType(schema), {"mode": "PERMISSIVE"})
    )
    row = F.get("json", F.lit(0))
    is_object = F.startswith(F.ltrim(text), F.lit("{")) & (F.size("json") == 1) & row.isNotNull()
    fault = F.when(F.col("misfit"), _not(encoding)).when(~F.coalesce(is_object, F.lit(False)), malformed)
    found = {name: json_texts(row, whole, name) for name in whole}
    fault = F.coalesce(fault, *_json_too_large([t for name in ids if name in own for t in found[name]], text))
    values = {name: _json_value(found[name], text) for name in own}
    fields = [(F.coalesce(v, folders[name]) if name in folders else v).alias(name) for name, v in values.items()]
    if explode is None:
        return parsed.select(RAW, fault.alias(FAULT), URI, BLOCK, *fields)
    elements = F.coalesce(*[column for column, _ in found[explode.column]])
    elements = split_text(elements, explode) if explode.kind == "text" else elements
    rows = parsed.select(RAW, fault.alias(FAULT), URI, BLOCK, text.alias("_line"), elements.alias(ELEMENTS), *fields)
    inner = element_fields(explode, names)

    def texts(element: Column, name: str) -> list[JsonText]:
        return json_texts(element, inner, name)

    def element_values(element: Column) -> dict[str, Column]:
        if explode.kind != "structs":
            return {explode.column: element}
        return {f"{explode.column}.{n}": _json_value(texts(element, n), F.col("_line")) for n in inner}

    def too_large(element: Column) -> list[Column]:
        of_ids = [n for n in inner if f"{explode.column}.{n}" in ids]
        return _json_too_large([t for n in of_ids for t in texts(element, n)], F.col("_line"))

    return exploded(rows, explode, FAULT, RAW, element_values, too_large).drop("_line")


def _json_elements(explode: Explode, names: Sequence[str]) -> DataType:
    if explode.kind == "text":
        return StringType()
    return ArrayType(json_schema(element_fields(explode, names)) if explode.kind == "structs" else StringType())


def _json_value(found: Sequence[JsonText], line: Column) -> Column:
    return F.coalesce(*[json_plain(text, line, key) for text, key in found])


def _json_too_large(found: Sequence[JsonText], line: Column) -> list[Column]:
    large = [json_number(text, line, key) & inexact(text.try_cast("double"), "double") for text, key in found]
    return [F.when(condition, f"{INEXACT} double") for condition in large]


def _read_csv(spark: SparkSession, group: Group, names: Sequence[str], explode: Explode | None) -> DataFrame:
    encoding, places = group.encoding, [f"c{i}" for i in range(len(group.columns))]
    reader = replace(group.reader, separator=_as_read(group.reader.separator, encoding))
    schema = StructType([StructField(name, StringType()) for name in [*places, _CORRUPT]])
    options: dict[str, Any] = {
        "sep": reader.separator,
        "header": reader.header,
        "quote": reader.quote or "\0",
        "escape": reader.quote or "\0",  # a doubled quote
        "comment": reader.comment or "\0",
        "multiLine": reader.multi_line,
        "encoding": _BYTES,
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _CORRUPT,
        "maxCharsPerColumn": reader.max_field_chars,
        "ignoreCorruptFiles": "false",
    }
    rows = spark.read.format("csv").schema(schema).options(**options).load(_paths(group))
    misfit = _misfit(F.concat(*[F.coalesce(p, F.lit("")) for p in [*places, _CORRUPT]]), encoding)
    fault = F.when(misfit, _not(encoding)).when(F.contains(F.col(_CORRUPT), F.lit("\n")), UNCLOSED)
    fault = fault.when(F.col(_CORRUPT).isNotNull(), FIELD_COUNT)
    written = F.coalesce(F.col(_CORRUPT), _csv_text(places, reader))
    raw = F.when(misfit & F.lit(not encoding.recoded), written).otherwise(_through(written, encoding))
    if reader.multi_line:
        text = F.concat_ws("", *places)
        n_breaks = F.length(text) - F.length(F.replace(text, F.lit("\n"), F.lit("")))
        fault = fault.when(n_breaks >= reader.max_record_lines, TOO_MANY_LINES.format(reader.max_record_lines))
    fields = [_csv_field(group.columns.index(n), reader, encoding).alias(n) for n in names if n in group.columns]
    fields += [_from_path(name).alias(name) for name in group.path_columns if name not in group.columns]
    rows = rows.select(raw.alias(RAW), fault.alias(FAULT), _uri(), _block(), *fields)
    if explode is None:
        return rows
    rows = rows.withColumn(ELEMENTS, split_text(F.col(f"`{explode.column}`"), explode)).drop(
        F.col(f"`{explode.column}`")
    )
    return exploded(rows, explode, FAULT, RAW, lambda element: {explode.column: element})


def _through(latin: Column, encoding: Encoding) -> Column:
    """Text of which each character stands for a byte in its own characters."""
    if encoding.table:
        other = [byte for byte, own in enumerate(encoding.table) if ord(own) != byte and own != _UNKNOWN]
        return F.translate(latin, "".join(map(chr, other)), "".join(encoding.table[byte] for byte in other))
    return F.encode(latin, _BYTES).cast("string")


def _misfit(latin: Column, encoding: Encoding) -> Column:
    """Whether bytes of such a text are no character of the encoding."""
    if encoding.table:
        unknown = "".join(f"\\x{byte:02x}" for byte, own in enumerate(encoding.table) if own == _UNKNOWN)
        return latin.rlike(f"[{unknown}]") if unknown else F.lit(False)
    if encoding.recoded:
        return F.contains(_through(latin, encoding), F.lit(MISFIT))
    return ~F.is_valid_utf8(_through(latin, encoding))


def _not(encoding: Encoding) -> str:
    return NOT_UTF8 if encoding == UTF_8 else f"not {encoding.name}"


def _as_read(text: str, encoding: Encoding) -> str:
    """A separator as it stands in the text that is read, where each character is a byte."""
    if encoding.table:
        return "".join(chr(encoding.table.index(c)) if c in encoding.table else c for c in text)
    return text.encode().decode(_BYTES)


def _csv_field(place: int, reader: Reader, encoding: Encoding) -> Column:
    field = _through(F.col(f"c{place}"), encoding)
    if place == 0 and not reader.header:  # a byte order mark comes before the first field
        return F.when(F.startswith(field, F.lit(_BOM)), F.substring(field, 2, 1 << 30)).otherwise(field)
    return field


def _csv_text(places: Sequence[str], reader: Reader) -> Column:
    """The row put together again, quoted where it must be."""
    parts = []
    for place in places:
        text = F.coalesce(F.col(place), F.lit(""))
        if reader.quote:
            special = [F.contains(text, F.lit(s)) for s in (reader.separator, reader.quote, "\n")]
            doubled = F.replace(text, F.lit(reader.quote), F.lit(reader.quote * 2))
            quoted = F.concat(F.lit(reader.quote), doubled, F.lit(reader.quote))
            text = F.when(special[0] | special[1] | special[2], quoted).otherwise(text)
        parts.append(text)
    return F.concat_ws(reader.separator, *parts)


def _read_columnar(
    spark: SparkSession,
    group: Group,
    names: Sequence[str],
    ids: Sequence[str],
    required: Sequence[tuple[str, ...]],
    table_path: str,
    explode: Explode | None,
) -> DataFrame:
    try:
        if group.reader.kind == "delta":
            rows = spark.read.format("delta").load(table_path)
        else:
            options = {"mergeSchema": "false", "ignoreCorruptFiles": "false"}  # they have one schema
            rows = spark.read.options(**options).parquet(*_paths(group))
    except Exception as error:  # footers are read here: Py4JJavaError of many kinds
        raise unreadable(error, group.files, _illegal(str(error), group)) from error
    folders = [name for name in group.path_columns if name not in rows.columns]
    source = Typed(
        "log file", group.files[0].path, rows, [_uri(), _block()], {name: _from_path(name) for name in folders},
        {name: found for name in names if (found := _nanos(group, name))},
    )  # fmt: skip
    taken = typed_rows(source, names, ids, required, explode)
    if group.reader.kind == "delta":
        taken = taken.where(F.col(URI).isin([normal_uri(f.uri) for f in group.files]))
    return taken


def _illegal(text: str, group: Group) -> str:
    """Which columns have the type that Spark says it cannot read; empty where it says nothing of the kind."""
    found = re.search(r"type: \w+ (\(.*\))", text)
    if found is None or not group.columns:
        return ""
    return ", ".join(f"column {line.split()[2]}" for line in group.columns[0].splitlines() if found[1] in line)


def _nanos(group: Group, name: str) -> str:
    """The type of a column of nanoseconds, which Spark reads as numbers; empty where it is of another type."""
    schema = group.columns[0] if group.columns else ""
    found = re.search(rf"int64 {re.escape(name)} \(TIMESTAMP\(NANOS,(true|false)\)\)", schema)
    return f"nanoseconds {found[1]}" if found else ""


def is_read_failure(error: Exception) -> bool:
    """Whether Spark failed because of what is in a file."""
    signs = ("FAILED_READ_FILE", "EOFException", "ZipException", "TextParsingException", "not a gzip file")
    return any(sign in str(error) for sign in signs)


def unreadable(error: Exception, files: Iterable[FileStatus], column: str = "") -> UserError:
    """The user's error for a file that Spark could not read, named where the message names it."""
    text = str(error)
    files = list(files)
    named = [f.path for f in files for o in [f.copy or f] if any(u in text for u in (o.uri, normal_uri(o.uri), o.path))]
    named = named or [f.path for f in files if len(files) == 1]
    reason = next((line for line in text.splitlines() if "Caused by:" in line or "Exception:" in line), "")
    fix = f"{f'{column}: ' if column else DAMAGED}{reason.strip()[:200]}".rstrip("; ")
    return UserError("log file cannot be read", where=", ".join(named[:3]) or "one of the new files", fix=fix)
