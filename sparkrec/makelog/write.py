"""Files of a log: one for each day, complete or not there at all."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparkrec.makelog.render import Attributes, Columns, csv_text, lines

GZIP_LEVEL = 4
ATTRIBUTE_CHUNK = 100_000  # rows


class TextFile:
    """A file of lines, plain or gzip, written under a hidden name until it is complete."""

    def __init__(self, path: Path, header: str, compress: bool) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._raw = self._part.open("wb")
        self._gzip = gzip.GzipFile("", "wb", GZIP_LEVEL, self._raw, mtime=0) if compress else None
        self._out = cast(BinaryIO, self._gzip or self._raw)
        self._out.write(header.encode())

    def __enter__(self) -> TextFile:
        return self

    def write(self, columns: Columns, glue: Sequence[str], cut: pa.Array | None = None, cut_at: int = 0) -> None:
        """Writes one line for each row; where ``cut`` is true only its first ``cut_at`` characters."""
        text = lines(columns, glue)
        if cut is not None:
            stump = pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, cut_at), "\n", "")
            text = pc.if_else(cut, stump, text)
        self._out.write(_bytes(text))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._gzip:
            self._gzip.close()
        self._raw.close()
        _finish(self._part, self._path, failed=kind is not None)


class ParquetFile:
    """A Parquet file of 64-bit integers, one row group for each piece."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._schema = pa.schema([(name, pa.int64()) for name in names])
        self._writer = pq.ParquetWriter(self._part, self._schema, compression="snappy")

    def __enter__(self) -> ParquetFile:
        return self

    def write(self, columns: Columns) -> None:
        """Writes the rows; an empty text is a missing number."""
        numbers = [pc.cast(_empty_as_null(column), pa.int64()) for column in columns.values()]
        self._writer.write_table(pa.table(numbers, schema=self._schema))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        _finish(self._part, self._path, failed=kind is not None)


def write_attributes(folder: Path, attributes: Attributes) -> Path:
    """Writes an attribute file as CSV, JSON lines or ``::``-separated text, by the ending of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / attributes.file
    names, n = list(attributes.columns), len(next(iter(attributes.columns.values())))
    header, glue = _attribute_notation(path.suffix, names)
    with TextFile(path, header, compress=False) as out:
        for low in range(0, n, ATTRIBUTE_CHUNK):
            piece = {k: v[low : low + ATTRIBUTE_CHUNK] for k, v in attributes.columns.items()}
            out.write(_attribute_text(path.suffix, piece), glue)
    return path


def _attribute_notation(suffix: str, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    if suffix == ".csv":
        return ",".join(names) + "\n", ("", *[","] * (len(names) - 1), "\n")
    if suffix == ".json":
        return "", (f'{{"{names[0]}": ', *[f', "{name}": ' for name in names[1:]], "}\n")
    return "", ("", *["::"] * (len(names) - 1), "\n")


def _attribute_text(suffix: str, columns: Mapping[str, Sequence[str]]) -> Columns:
    if suffix == ".csv":
        return {name: csv_text(values) for name, values in columns.items()}
    if suffix == ".json":
        return {
            name: pa.array(list(values) if name == "price" else [json.dumps(v) for v in values], pa.string())
            for name, values in columns.items()
        }
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def _bytes(text: pa.Array) -> memoryview:
    """The texts of an array, one after the other: their buffer in Arrow's memory."""
    if not len(text):
        return memoryview(b"")
    first, last = (int.from_bytes(_offset(text, i), "little") for i in (text.offset, text.offset + len(text)))
    return memoryview(text.buffers()[2] or b"")[first:last]


def _offset(text: pa.Array, i: int) -> memoryview:
    width = 8 if pa.types.is_large_string(text.type) else 4
    return memoryview(text.buffers()[1])[i * width : (i + 1) * width]


def _empty_as_null(column: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _finish(part: Path, path: Path, *, failed: bool) -> None:
    if failed:
        part.unlink(missing_ok=True)
    else:
        part.replace(path)
