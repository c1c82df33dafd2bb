"""The files of a log, and some bytes of each: from begin to end where they are small, else blocks from all over."""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sparkrec.errors import UserError
from sparkrec.settings.formats import COMPRESSIONS, compression, unpacked_name
from sparkrec.storage.files import resolve

T = TypeVar("T")
HEAD = 1 << 16  # bytes that a file's kind is told by
N_BLOCKS = 8  # of a file that is too large to be read whole
MOST_FILES = 400  # whose beginnings are read


@dataclass(frozen=True)
class LogFile:
    """A file of the log, or a member of a zip file.

    Attributes:
        path: Where it is, for the file system.
        name: Relative to the log's folder; of a zip file the member's own.
        size: Bytes as stored.
        compression: ``gzip``, ``bz2``, ``zstd``, ``xz``, ``zip`` or empty.
        member: Of a zip file.
    """

    path: str
    name: str
    size: int
    compression: str = ""
    member: str = ""

    @property
    def base(self) -> str:
        """Its name without folders and without the compression's ending."""
        return unpacked_name(self.name)


@dataclass(frozen=True)
class Store:
    """A file system of pyarrow, and the log's folder (or only file) in it."""

    fs: Any
    root: str

    def head(self, file: LogFile) -> bytes:
        """The first bytes, unpacked."""
        return b"".join(self._stream(file, HEAD))[:HEAD]

    def blocks(self, file: LogFile, most: int) -> list[bytes]:
        """Bytes of a text file, at most so many: all of them, or blocks of whole lines; the first begins the file."""
        if file.compression:
            data = b"".join(self._stream(file, most + 1))
            return [_until_line_end(data[:most]) if len(data) > most else data]
        with self.fs.open_input_file(file.path) as stream:
            if file.size <= most:
                return [stream.read()]
            length = most // N_BLOCKS
            found = []
            for i in range(N_BLOCKS):
                at = i * (file.size - length) // (N_BLOCKS - 1)
                stream.seek(at)
                data = stream.read(length)
                if at:
                    data = data[data.find(b"\n") + 1 :]
                found.append(data if at + length >= file.size else _until_line_end(data))
            return found

    def open(self, file: LogFile) -> Any:
        """A file to seek in, of Parquet."""
        return self.fs.open_input_file(file.path)

    def _stream(self, file: LogFile, most: int) -> Iterator[bytes]:
        """The first bytes, unpacked, some more than asked for.

        Raises:
            UserError: The file is damaged.
        """
        read = 0
        try:
            with self._unpacked(file) as stream:
                while read < most and (data := stream.read(min(1 << 20, most - read))):
                    read += len(data)
                    yield data
        except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, ValueError) as error:
            raise UserError("log file cannot be read", where=file.path, fix=f"is it damaged? {error}") from error

    def _unpacked(self, file: LogFile) -> Any:
        if file.compression == "xz":
            return lzma.open(self.fs.open_input_file(file.path))
        if file.compression == "zip":
            return zipfile.ZipFile(self.fs.open_input_file(file.path)).open(file.member)
        return self.fs.open_input_stream(file.path, compression=file.compression or None)


def open_log(path: str) -> tuple[Store, list[LogFile]]:
    """The log's file system and its files, hidden ones (``.x``, ``_x``) left out, in order of name.

    Raises:
        UserError: Nothing is there, or it cannot be reached.
    """
    import pyarrow as pa
    from pyarrow import fs as pafs

    try:
        fs, root = resolve(path)
        info = fs.get_file_info(root)
        if info.type == pafs.FileType.NotFound:
            raise UserError("no such log", where=path, fix="give the file or folder of the raw logs")
        found = [info] if info.is_file else fs.get_file_info(pafs.FileSelector(root, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise UserError("log cannot be read", where=path, fix=str(error).splitlines()[0]) from error
    files = []
    base = root if not info.is_file else root.rpartition("/")[0]
    for entry in found:
        name = entry.path[len(base) :].lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if entry.is_file and entry.size and not hidden:
            files.append(LogFile(entry.path, name, entry.size, COMPRESSIONS.get(compression(name), "")))
    store = Store(fs, root)
    whole = [member for file in sorted(files, key=lambda f: f.name) for member in _members(store, file)]
    if not whole:
        raise UserError("no log file with anything in it", where=path, fix="give the file or folder of the raw logs")
    return store, whole


def spread(files: Sequence[T], most: int) -> list[T]:
    """At most so many of the files (or of other things), the first and the last among them."""
    if len(files) <= most:
        return list(files)
    if most == 1:
        return [files[-1]]
    return [files[i * (len(files) - 1) // (most - 1)] for i in range(most)]


def _members(store: Store, file: LogFile) -> list[LogFile]:
    if file.compression != "zip":
        return [file]
    try:
        with store.fs.open_input_file(file.path) as stream, zipfile.ZipFile(stream) as archive:
            inside = [(m.filename, m.compress_size) for m in archive.infolist() if m.file_size and not m.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError("log file cannot be read", where=file.path, fix=f"is it damaged? {error}") from error
    shown = [(name, size) for name, size in inside if not any(p.startswith((".", "_")) for p in name.split("/"))]
    return [LogFile(file.path, name, size, "zip", name) for name, size in shown]


def _until_line_end(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
