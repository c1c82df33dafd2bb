"""Files that look alike, with some of their rows: a log often has several kinds beside each other."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from sparkrec.errors import UserError
from sparkrec.ingest.literals import json_dict, python_dict
from sparkrec.look.dialect import Dialect, decoded, dialect_of, encoding_of
from sparkrec.look.files import MOST_FILES, LogFile, Store, open_log, spread
from sparkrec.look.otherwise import packed_otherwise, written_otherwise
from sparkrec.settings.sections import StorageConfig
from sparkrec.storage.access import reach
from sparkrec.storage.files import exists, join
from sparkrec.storage.places import place_of

if TYPE_CHECKING:
    import polars as pl

SAMPLE_BYTES = 32 << 20  # of text, over all files
SAMPLE_ROWS = 400_000  # of a kind of files
SAMPLE_FILES = 24  # of a kind, where all of them would be more bytes
PACKED = 4  # times that a compressed text is shorter, about
FILE = "_file"
NO_LOG = (
    ".yaml",
    ".yml",
    ".md",
    ".html",
    ".pdf",
    ".png",
    ".jpg",
    ".py",
    ".xml",
    ".xlsx",
    ".xls",
    ".tar",
    ".7z",
    ".rar",
)


@dataclass(frozen=True)
class Kind:
    """Files that one reader reads.

    Attributes:
        reader: ``csv``, ``jsonl``, ``python``, ``parquet`` or ``delta``.
        dialect: Of CSV.
        encoding: Of text.
        files: All of them.
        rows: Some of their rows: columns of text, arrays and objects as JSON, nested fields under dotted names, and
            ``_file``: the number of the file.
        types: The types of a typed file's columns, as pyarrow names them.
        share: The share of the files' bytes that was read; 1: all.
    """

    reader: str
    files: tuple[LogFile, ...]
    rows: pl.DataFrame
    dialect: Dialect | None = None
    encoding: str = "utf-8"
    types: tuple[tuple[str, str], ...] = ()
    share: float = 1.0

    @property
    def columns(self) -> list[str]:
        """The columns of the log."""
        return [name for name in self.rows.columns if name != FILE]

    @property
    def n_rows(self) -> int:
        """Rows of all files, estimated from those read and their bytes."""
        return round(self.rows.height / max(self.share, 1e-12))

    def type_of(self, column: str) -> str:
        """The declared type of a column; empty for text."""
        return dict(self.types).get(column, "")


def kinds_of(path: str) -> tuple[list[Kind], list[str]]:
    """The kinds of files of a log, those with the most bytes first, and what was left aside, each with the reason.

    Raises:
        UserError: The log is not there, cannot be reached, or a file of it cannot be read.
    """
    reach(StorageConfig())
    if exists(join(path, "_delta_log")):
        return [_delta(path)], []
    store, files = open_log(path)
    aside: dict[str, list[LogFile]] = {}
    alike: dict[tuple[Any, ...], list[LogFile]] = {}
    heads = spread([f for f in files if not f.base.lower().endswith(NO_LOG)], MOST_FILES)
    for file in files:
        if file.base.lower().endswith(NO_LOG):
            aside.setdefault("no log by its ending", []).append(file)
    shape: tuple[Any, ...] = ()
    for file in files:
        if file.base.lower().endswith(NO_LOG):
            continue
        if file in heads or not shape:
            shape = _shape(store, file)
        if shape[0] == "":
            aside.setdefault(shape[1], []).append(file)
        else:
            alike.setdefault(_near(shape, alike), []).append(file)
    found = [kind for shape, members in alike.items() if (kind := _sampled(store, shape, members)) is not None]
    said = [
        f"{', '.join(f.name for f in some[:3])}{', …' if len(some) > 3 else ''}: {why}" for why, some in aside.items()
    ]
    return sorted(found, key=lambda kind: -kind.n_rows * len(kind.columns)), said


def _shape(store: Store, file: LogFile) -> tuple[Any, ...]:
    """What files must share to be of one kind; beginning with "" and the reason where it is no log."""
    head = store.head(file)
    if head.startswith(b"PAR1"):
        return ("parquet", tuple(_schema(store, file)))
    if why := packed_otherwise(head):
        return ("", why)
    if not head.strip():
        return ("", "empty")
    if b"\0" in head[:4096] and not head.startswith((b"\xff\xfe", b"\xfe\xff")) and head[:64].count(b"\0") < 16:
        return ("", "neither text nor Parquet")
    encoding = encoding_of(head)
    text = decoded(head, encoding)
    lines = [line for line in text.splitlines() if line.strip()][:200]
    if why := written_otherwise(lines):
        return ("", why)
    if lines[0].lstrip().startswith("{"):
        for reader, parse in (("jsonl", json_dict), ("python", python_dict)):
            found = [value for line in lines[:20] if (value := parse(line)) is not None]
            if found:
                return (reader, encoding, frozenset(name for value in found for name in value))
        return ("", "JSON over several lines, or damaged: an object each line is read")
    whole = text[: text.rfind("\n") + 1] or text
    dialect = dialect_of(whole)
    return (
        ("", "no separator cuts its lines into fields")
        if dialect is None
        else ("csv", encoding, replace(dialect, record_lines=1))
    )


def _near(shape: tuple[Any, ...], known: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """The shape among those known whose objects are alike: files of JSON need not have all fields in common."""
    if shape[0] not in ("jsonl", "python"):
        return shape
    for other in known:
        if other[:2] == shape[:2] and 2 * len(other[2] & shape[2]) > len(other[2] | shape[2]):
            return other
    return shape


def _sampled(store: Store, shape: tuple[Any, ...], files: Sequence[LogFile]) -> Kind | None:
    if shape[0] == "parquet":
        return _parquet(store, files)
    unpacked = sum(file.size * (PACKED if file.compression else 1) for file in files)
    some = spread(files, SAMPLE_FILES if unpacked > SAMPLE_BYTES else MOST_FILES)
    each = max(SAMPLE_BYTES // len(some), 1 << 20)
    frames, read, stored, lines = [], 0, 0, 1
    dialect = shape[2] if shape[0] == "csv" else None
    for file in some:
        blocks = store.blocks(file, each)
        whole = not file.compression or sum(map(len, blocks)) < each
        read += sum(map(len, blocks)) if not file.compression else (file.size if whole else file.size // PACKED)
        stored += file.size
        number = files.index(file)
        if dialect is None:
            frames.append(_from_lines(blocks, shape[1], number, json_dict if shape[0] == "jsonl" else python_dict))
        else:
            found = dialect_of(decoded(blocks[0], shape[1]))
            lines = max(lines, found.record_lines if found else 1)
            frames.append(_from_csv(blocks, shape[1], dialect, number))
    import polars as pl

    rows = _with_folders(pl.concat(frames, how="diagonal"), files)
    if rows.height == 0:
        return None
    share = min(1.0, read / stored) * min(1.0, stored / sum(f.size for f in files))
    dialect = replace(dialect, record_lines=lines) if dialect else None
    return Kind(shape[0], tuple(files), rows, dialect, shape[1], share=share)


def _with_folders(rows: pl.DataFrame, files: Sequence[LogFile]) -> pl.DataFrame:
    """The rows with a column for each folder ``name=value`` of their files, as a night reads them."""
    import polars as pl

    named = [dict(part.split("=", 1) for part in file.name.split("/")[:-1] if "=" in part) for file in files]
    names = [name for name in dict.fromkeys(name for one in named for name in one) if name not in rows.columns]
    values = pl.DataFrame(
        {FILE: range(len(files))}
        | {name: [unquote(one[name]) if name in one else None for one in named] for name in names},
        schema={FILE: pl.Int32} | dict.fromkeys(names, pl.String),
    )
    return rows.join(values, on=FILE, how="left", maintain_order="left") if names else rows


def _from_csv(blocks: Sequence[bytes], encoding: str, dialect: Dialect, number: int) -> pl.DataFrame:
    import polars as pl

    frames = []
    for i, block in enumerate(blocks):
        text = decoded(block, encoding)
        if dialect.comment:
            text = "\n".join(line for line in text.split("\n") if not line.startswith(dialect.comment))
        if len(dialect.separator) > 1:
            text = text.replace(dialect.separator, "\x1f")
        if not text.strip():
            continue
        separator = dialect.separator if len(dialect.separator) == 1 else "\x1f"
        named = separator.join(f"c{n}" for n in range(len(dialect.names)))  # a first row may be shorter than others
        rows = pl.read_csv(
            io.BytesIO(f"{named}\n{text}".encode()),
            separator=separator,
            quote_char=dialect.quote or None,
            skip_rows_after_header=1 if dialect.header and i == 0 else 0,
            infer_schema=False,
            ignore_errors=True,
            truncate_ragged_lines=True,
            raise_if_empty=False,
        )
        frames.append(rows.head(SAMPLE_ROWS).rename(dict(zip(rows.columns, dialect.names, strict=True))))
    rows = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(dialect.names, pl.String))
    return rows.with_columns(pl.lit(number).alias(FILE))


def _from_lines(
    blocks: Sequence[bytes], encoding: str, number: int, parse: Callable[[str], dict[str, Any] | None]
) -> pl.DataFrame:
    import polars as pl

    most = SAMPLE_ROWS // 4
    objects: list[dict[str, str | None]] = []
    for block in blocks:
        for line in decoded(block, encoding).split("\n")[: most // len(blocks)]:
            value = parse(line) if line.strip() else None
            if value is not None:
                objects.append(dict(_flat(value, "")))
    names = dict.fromkeys(name for value in objects for name in value)
    rows = pl.DataFrame(
        {name: [value.get(name) for value in objects] for name in names}, schema=dict.fromkeys(names, pl.String)
    )
    return rows.with_columns(pl.lit(number).alias(FILE))


def _flat(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, str | None]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(inner)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, default=str)


def _schema(store: Store, file: LogFile) -> Iterator[tuple[str, str]]:
    import pyarrow.parquet as pq

    with store.open(file) as stream:
        try:
            for column in pq.ParquetFile(stream).schema_arrow:
                yield column.name, str(column.type)
        except OSError as error:
            raise UserError("log file cannot be read", where=file.path, fix=f"is it damaged? {error}") from error


def _parquet(store: Store, files: Sequence[LogFile]) -> Kind:
    import polars as pl
    import pyarrow.parquet as pq

    some = spread(files, SAMPLE_FILES)
    frames, n_read, n_all = [], 0, 0
    types: dict[str, str] = {}
    for file in some:
        with store.open(file) as stream:
            parquet = pq.ParquetFile(stream)
            n_all += parquet.metadata.num_rows
            most = SAMPLE_ROWS // len(some)
            groups = spread([*range(parquet.num_row_groups)], 4)
            for group in groups:
                table = next(parquet.iter_batches(max(1, most // len(groups)), row_groups=[group]), None)
                if table is None:
                    continue
                n_read += table.num_rows
                flat = _flattened(table)
                types |= {name: str(type_) for name, type_ in zip(flat.schema.names, flat.schema.types, strict=True)}
                frames.append(_as_text(flat).with_columns(pl.lit(files.index(file)).alias(FILE)))
    share = n_read / max(1, n_all) * len(some) / len(files)
    rows = _with_folders(pl.concat(frames, how="diagonal"), files)
    return Kind("parquet", tuple(files), rows, types=tuple(types.items()), share=share)


def _delta(path: str) -> Kind:
    import polars as pl
    import pyarrow as pa
    from deltalake import DeltaTable

    table = DeltaTable(place_of(path).reader_uri)
    n_all = sum(pa.table(table.get_add_actions(flatten=True)).to_pydict().get("num_records") or [0])
    flat = _flattened(pl.scan_delta(table).head(SAMPLE_ROWS).collect().to_arrow())
    types = tuple((name, str(type_)) for name, type_ in zip(flat.schema.names, flat.schema.types, strict=True))
    rows = _as_text(flat).with_columns(pl.lit(0).alias(FILE))
    file = LogFile(path, Path(path).name, 1)
    return Kind("delta", (file,), rows, types=types, share=min(1.0, rows.height / max(1, n_all or rows.height)))


def _flattened(table: Any) -> Any:
    """A table of Arrow with the fields of structs as columns of dotted names."""
    import pyarrow as pa

    table = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
    while any(pa.types.is_struct(type_) for type_ in table.schema.types):
        table = table.flatten()
    return table


def _as_text(table: Any) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    columns = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if pa.types.is_nested(column.type):
            columns[name] = pl.Series([_text(value) for value in column.to_pylist()], dtype=pl.String)
        elif pa.types.is_temporal(column.type):
            values = pl.Series(column.cast(pa.timestamp("us")) if not pa.types.is_time(column.type) else column)
            columns[name] = values.cast(pl.String)
        elif pa.types.is_floating(column.type):
            values = pl.Series(column).cast(pl.Float64)
            whole = values.is_finite() & (values == values.floor()) & (values.abs() < 1 << 53)
            as_whole = values.set(~whole.fill_null(value=False), None).cast(pl.Int64, strict=False).cast(pl.String)
            columns[name] = pl.select(pl.coalesce(as_whole, values.fill_nan(None).cast(pl.String))).to_series()
        else:
            columns[name] = pl.Series(column).cast(pl.String)
    return pl.DataFrame(columns)
