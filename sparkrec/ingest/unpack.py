"""Files that Spark cannot read as they are: unpacked and brought into UTF-8, as streams in the driver's JVM.

Spark reads plain text and what Hadoop unpacks (``.gz``, ``.bz2``), in UTF-8 or with a byte for each character. Of all
else (``.zst``, ``.xz``, ``.zip``, UTF-16, Shift JIS, …) a copy is made in the attempt's staging folder.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sparkrec.errors import UserError
from sparkrec.ingest.hadoop import MISFIT, UTF_8, Encoding, FileStatus, FileSystem, java_message
from sparkrec.ingest.log_files import reader_for
from sparkrec.settings.formats import Reader, compression

MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16le", b"\xfe\xff": "utf-16be"}  # byte order marks
COPIED = (".zst", ".xz")
DAMAGED = "it is damaged or cut short: write it again, or remove it; "
THREADS = 4
# How a .zip packs its members: the numbers of PKWARE's APPNOTE.TXT, 4.4.5.
STORED, DEFLATED, DEFLATE64, BZIP2, ZSTD = 0, 8, 9, 12, 93

BZIP2_END = 16  # bytes: the mark, a checksum of four bytes, and up to a byte to fill

FileReader = tuple[FileStatus, Reader]


def with_readers(
    fs: FileSystem, listed: Iterable[FileStatus], readers: Sequence[Reader]
) -> list[tuple[FileStatus, Reader | None]]:
    """Files with the first reader that their name fits; a ``.zip`` with that of the first member that fits one.

    The members that fit none follow, as files for which there is no reader.
    """
    listed = list(listed)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: _with_reader(fs, file, readers), listed))
    return [pair for pairs in found for pair in pairs]


def _with_reader(fs: FileSystem, file: FileStatus, readers: Sequence[Reader]) -> list[tuple[FileStatus, Reader | None]]:
    own = reader_for(file.name, readers)
    if compression(file.name) != ".zip" or file.size == 0:
        return [(file, own)]
    try:
        inside = members(fs, file, readers)
    except (OSError, zipfile.BadZipFile):  # said when it is read, if it is
        return [(file, own or readers[0])]
    fits = next((reader for _, reader in inside if reader), None)
    strange = [(replace(file, name=f"{file.name}/{info.filename}"), None) for info, reader in inside if not reader]
    return [(file, fits), *strange] if fits else [(file, None)]


def members(fs: FileSystem, file: FileStatus, readers: Sequence[Reader]) -> list[tuple[zipfile.ZipInfo, Reader | None]]:
    """The files in a ``.zip``, hidden ones left out, each with the first reader that its name fits.

    An only one may go by the archive's name as well.

    Raises:
        zipfile.BadZipFile, OSError: It is damaged, or cannot be read.
    """
    stream = fs.open(file)
    try:
        with zipfile.ZipFile(_Seekable(stream, file.size)) as archive:
            inside = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
    finally:
        stream.close()
    only = reader_for(file.name, readers) if len(inside) == 1 else None
    return [(info, reader_for(info.filename, readers) or only) for info in inside]


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


class _Seekable(io.RawIOBase):
    """A Java stream of Hadoop's as a file of Python's."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream, self._size = stream, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._stream.getPos())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        if not 0 <= place <= self._size:
            raise OSError(f"no place {place} in a file of {self._size} bytes")
        self._stream.seek(place)
        return place

    def read(self, size: int = -1) -> bytes:
        return bytes(self._stream.readNBytes(self._size if size < 0 else size))


def make_readable(
    fs: FileSystem, files: Sequence[FileReader], readers: Sequence[Reader], folder: str
) -> list[FileReader]:
    """The files as Spark can read them, with their encodings; of an archive each member that a reader is for.

    Args:
        fs: File system.
        files: Files with their readers.
        readers: All readers that an archive's members may go to.
        folder: Where copies are made: a new one, removed by whoever named it.

    Returns:
        Files and readers. A copy has ``name`` and ``uri`` of the file that it was made from.

    Raises:
        UserError: A damaged file, one that is packed in a way that is not read, or an unknown encoding.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda n: _readable(fs, files[n], readers, f"{folder}/{n}"), range(len(files))))
    return [pair for pairs in found for pair in pairs]


def _readable(fs: FileSystem, pair: FileReader, readers: Sequence[Reader], folder: str) -> list[FileReader]:
    file, reader = pair
    packed = compression(file.name)
    if file.size == 0 or (not reader.is_text and packed != ".zip"):
        return [pair]
    try:
        if packed == ".zip":
            return _members(fs, file, reader, readers, folder)
        if packed == ".bz2" and not _is_whole_bz2(fs.tail(file, BZIP2_END)):
            raise OSError("its end is missing")
        encoding, mark = _encoding(fs, fs.head(file, 3), reader)
        if packed not in COPIED and not _must_recode(encoding) and not (mark and reader.comment):
            return [(replace(file, encoding=encoding), reader)]
        stream = fs.open(file)
        try:
            copied = _copy(fs, file, fs.unpacked(file, stream), mark, encoding, folder)
        finally:
            stream.close()
    except UserError:
        raise
    except Exception as error:  # a Java exception of the file system or what unpacks, or zipfile's
        raise UserError("log file cannot be read", where=file.path, fix=f"{DAMAGED}{java_message(error)}") from error
    return [(copied, reader)]


def _is_whole_bz2(tail: bytes) -> bool:
    """Whether the last bytes of a file hold the mark at the end of a bzip2 stream, at any bit.

    Hadoop takes a file that ends between two blocks for a whole one.
    """
    bits = "".join(f"{byte:08b}" for byte in tail)
    return f"{0x177245385090:048b}" in bits


def _members(
    fs: FileSystem, file: FileStatus, reader: Reader, readers: Sequence[Reader], folder: str
) -> list[FileReader]:
    inside = members(fs, file, readers)
    if len(inside) == 1 and not inside[0][1]:  # named by the user: whatever its name
        inside = [(inside[0][0], reader)]
    found = []
    for n, (info, own) in enumerate(inside):
        if own and info.file_size:
            name = f"{file.name}/{info.filename}"
            member = replace(file, name=name, path=f"{file.path}/{info.filename}")
            found.append((_unzip(fs, file, member, info, own, f"{folder}/{n}"), own))
    return found or [(replace(file, size=0), reader)]


def _unzip(
    fs: FileSystem, file: FileStatus, member: FileStatus, info: zipfile.ZipInfo, reader: Reader, folder: str
) -> FileStatus:
    stream = fs.open(file)
    try:
        encoding, mark = UTF_8, b""
        if reader.is_text:
            encoding, mark = _encoding(fs, bytes(_unpacked(fs, stream, member, info).readNBytes(3)), reader)
        crc = fs.java.util.zip.CRC32()
        checked = fs.java.util.zip.CheckedInputStream(_unpacked(fs, stream, member, info), crc)
        copied = _copy(fs, member, checked, mark, encoding, folder)
        if crc.getValue() != info.CRC:
            raise zipfile.BadZipFile(f"wrong checksum of {info.filename}")
    finally:
        stream.close()
    return copied


def _unpacked(fs: FileSystem, stream: Any, member: FileStatus, info: zipfile.ZipInfo) -> Any:
    """A Java stream of a member's bytes, unpacked."""
    java, compressors = fs.java, fs.compressors
    if info.flag_bits & 1:
        raise UserError("log file is encrypted", where=member.path, fix="pack it without a password")
    stream.seek(info.header_offset)
    header = bytes(stream.readNBytes(30))
    if header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header of {info.filename}")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    stream.seek(info.header_offset + 30 + name + extra)
    if info.compress_type == STORED:
        return fs.bounded(stream, info.file_size)
    if info.compress_type == DEFLATED:
        return java.util.zip.InflaterInputStream(stream, java.util.zip.Inflater(True))
    if info.compress_type == DEFLATE64:  # Windows, of more than 2 GB
        return compressors.deflate64.Deflate64CompressorInputStream(stream)
    if info.compress_type == BZIP2:
        return compressors.bzip2.BZip2CompressorInputStream(fs.bounded(stream, info.compress_size))
    if info.compress_type == ZSTD:
        return fs.zstd(fs.bounded(stream, info.compress_size))
    what = f"log file is packed in a way that is not read (method {info.compress_type})"
    raise UserError(what, where=member.path, fix="pack it with deflate, or as .zst or .gz")


def _must_recode(encoding: Encoding) -> bool:
    return encoding != UTF_8 and not encoding.table


def _encoding(fs: FileSystem, start: bytes, reader: Reader) -> tuple[Encoding, bytes]:
    """The encoding of a text, and the byte order mark that it begins with."""
    mark = next((mark for mark in MARKS if start.startswith(mark)), b"")
    name = MARKS.get(mark, reader.encoding)
    if name.lower() in ("utf-8", "utf8", "ascii", "us-ascii"):
        return UTF_8, mark
    charset = charset_of(fs, name)
    if not charset.canEncode() or charset.newEncoder().maxBytesPerChar() != 1.0:
        return Encoding(name), mark
    table = str(fs.java.lang.String(bytes(range(256)), charset))
    own = len(table) == 256 and table[:128] == bytes(range(128)).decode("ascii")  # separators and line ends as of ASCII
    return Encoding(name, table if own else ""), mark


def charset_of(fs: FileSystem, name: str) -> Any:
    """The Java charset of an encoding's name.

    Raises:
        UserError: Java knows no such name.
    """
    try:
        return fs.java.nio.charset.Charset.forName(name)
    except Exception as error:  # a Java exception, of a name that is unknown or cannot be one
        fix = "a name that Java knows, e.g. utf-8, windows-1252, iso-8859-1, utf-16, Shift_JIS"
        raise UserError("unknown encoding of a log format", where=f"encoding: {name}", fix=fix) from error


def _copy(fs: FileSystem, file: FileStatus, stream: Any, mark: bytes, encoding: Encoding, folder: str) -> FileStatus:
    """Writes what a stream holds into a file of its own, without its byte order mark, in UTF-8 where it must be."""
    hive = [part for part in file.name.split("/")[:-1] if "=" in part]  # columns of the path
    path = "/".join([folder, *hive, "copy"])
    out = fs.create(path)
    try:
        stream.readNBytes(len(mark))
        if _must_recode(encoding):
            action = fs.java.nio.charset.CodingErrorAction.REPLACE
            decoder = charset_of(fs, encoding.name).newDecoder().replaceWith(MISFIT)
            decoder = decoder.onMalformedInput(action).onUnmappableCharacter(action)
            writer = fs.java.io.OutputStreamWriter(out, fs.java.nio.charset.StandardCharsets.UTF_8)
            fs.java.io.InputStreamReader(stream, decoder).transferTo(writer)
            writer.flush()
            encoding = replace(encoding, recoded=True)
        else:
            stream.transferTo(out)
    finally:
        out.close()
    copy = fs.status_of(path, file.name)
    return replace(file, size=copy.size, copy=copy, encoding=encoding)
