"""Files through Hadoop's file system in the driver's JVM: what Spark can read, this can list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

HEAD = 16384  # bytes of a file that tell how it is to be read


@dataclass(frozen=True)
class Encoding:
    """How the bytes of a text file are characters.

    Attributes:
        name: Its name.
        table: The character of each byte, U+FFFD for none, where a byte is a character; else empty: UTF-8.
        recoded: The file is UTF-8 by now; ``MISFIT`` stands where bytes were no character of the encoding.
    """

    name: str = "utf-8"
    table: str = ""
    recoded: bool = False


UTF_8 = Encoding()
MISFIT = "\ufdd0"  # Unicode keeps it for uses like this one: it is never a character


@dataclass(frozen=True)
class FileStatus:
    """A file: path relative to the folder listed, the path Spark loads, its URI, bytes, modification time (UTC).

    ``copy`` is what is read in its stead, where Spark could not read it: unpacked, in UTF-8.
    """

    name: str
    path: str
    uri: str
    size: int
    modified_at: datetime
    copy: FileStatus | None = None
    encoding: Encoding = UTF_8


class FileSystem:
    """The few file operations that ingest needs, on any file system that Hadoop knows."""

    def __init__(self, spark: SparkSession) -> None:
        jvm: Any = spark._jvm
        self._jvm = jvm
        self.java = jvm.java
        self.compressors = jvm.org.apache.commons.compress.compressors
        self._conf = spark._jsc.hadoopConfiguration()  # type: ignore[attr-defined]

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder.

        Raises:
            UserError: The path cannot be looked at (unknown scheme, no permission, no connection).
        """
        try:
            fs, p = self._open(path)
            return bool(fs.exists(p))
        except Exception as error:  # Py4JJavaError of many kinds
            raise UserError("path cannot be read", where=path, fix=java_message(error)) from error

    def is_file(self, path: str) -> bool:
        """Whether the path is a plain file."""
        fs, p = self._open(path)
        return bool(fs.getFileStatus(p).isFile())

    def list_files(self, root: str) -> list[FileStatus]:
        """The file itself, or all files below a folder, hidden ones (``.x``, ``_x``) left out, in order of name."""
        fs, p = self._open(root)
        base = str(fs.makeQualified(p).toString()).rstrip("/")
        found, iterator = [], fs.listFiles(p, True)
        while iterator.hasNext():
            status = iterator.next()
            full = str(status.getPath().toString())
            name = full[len(base) + 1 :] if full != base else full.rsplit("/", 1)[-1]
            if not any(part.startswith((".", "_")) for part in name.split("/")):
                found.append(self._status(status, name))
        return sorted(found, key=lambda f: f.name)

    def stat(self, uri: str, name: str) -> FileStatus:
        """The present status of a file by its URI."""
        path = self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI(uri))
        return self._status(path.getFileSystem(self._conf).getFileStatus(path), name)

    def head(self, file: FileStatus, n_bytes: int = HEAD) -> bytes:
        """The first bytes of a file, unpacked where its name says that it is compressed."""
        stream = self.open(file)
        try:
            return bytes(self.unpacked(file, stream).readNBytes(n_bytes))
        finally:
            stream.close()

    def tail(self, file: FileStatus, n_bytes: int) -> bytes:
        """The last bytes of a file, as they are."""
        stream = self.open(file)
        try:
            stream.seek(max(0, file.size - n_bytes))
            return bytes(stream.readNBytes(n_bytes))
        finally:
            stream.close()

    def unpacked(self, file: FileStatus, stream: Any) -> Any:
        """A Java stream of what is packed in a file's stream, as the end of the file's name says."""
        name = (file.copy or file).uri.lower()
        if name.endswith(".zst"):
            return self.zstd(stream)
        if name.endswith(".xz"):
            return self._jvm.org.tukaani.xz.XZInputStream(stream)
        codec = self._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(self._conf).getCodec(
            self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI((file.copy or file).uri))
        )
        return codec.createInputStream(stream) if codec is not None else stream

    def zstd(self, stream: Any) -> Any:
        """A Java stream of what Zstandard has packed, with windows of any length."""
        unpacked = self._jvm.com.github.luben.zstd.ZstdInputStream(stream)
        unpacked.setLongMax(31)
        return unpacked

    def bounded(self, stream: Any, size: int) -> Any:
        """A Java stream of the next bytes of another, and no more of it."""
        return self._jvm.org.apache.commons.compress.utils.BoundedInputStream(stream, size)

    def open(self, file: FileStatus) -> Any:
        """The Java stream of a file's bytes, or of its copy's."""
        path = self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI((file.copy or file).uri))
        return path.getFileSystem(self._conf).open(path)

    def create(self, path: str) -> Any:
        """A Java stream into a new file."""
        fs, p = self._open(path)
        return fs.create(p)

    def status_of(self, path: str, name: str) -> FileStatus:
        """The present status of a file by its path."""
        fs, p = self._open(path)
        return self._status(fs.getFileStatus(p), name)

    def parquet_schema(self, file: FileStatus) -> str:
        """The columns of a Parquet file as its footer declares them, a line each."""
        path = self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI((file.copy or file).uri))
        hadoop = self._jvm.org.apache.parquet.hadoop
        reader = hadoop.ParquetFileReader.open(hadoop.util.HadoopInputFile.fromPath(path, self._conf))
        try:
            schema = str(reader.getFileMetaData().getSchema().toString())
        finally:
            reader.close()
        return schema.partition("\n")[2]  # the first line is the writer's name for it

    def sha256(self, file: FileStatus) -> str:
        """Hash of the file's bytes, streamed in the JVM."""
        stream = self.open(file)
        try:
            return str(self._jvm.org.apache.commons.codec.digest.DigestUtils.sha256Hex(stream))
        finally:
            stream.close()

    def make_folder(self, path: str) -> None:
        """Creates a folder and its parents.

        Raises:
            UserError: It cannot be written.
        """
        try:
            fs, p = self._open(path)
            made = bool(fs.mkdirs(p))
        except Exception as error:  # Py4JJavaError of many kinds
            raise UserError("warehouse cannot be written", where=path, fix=java_message(error)) from error
        if not made:
            raise UserError("warehouse cannot be written", where=path, fix="check warehouse.path and its permissions")

    def remove(self, path: str) -> None:
        """Removes a folder and all below it."""
        fs, p = self._open(path)
        fs.delete(p, True)

    def remove_if_empty(self, path: str) -> None:
        """Removes a folder that holds nothing."""
        fs, p = self._open(path)
        if fs.exists(p) and len(fs.listStatus(p)) == 0:
            fs.delete(p, False)

    def _open(self, path: str) -> tuple[Any, Any]:
        p = self._jvm.org.apache.hadoop.fs.Path(path)
        return p.getFileSystem(self._conf), p

    def _status(self, status: Any, name: str) -> FileStatus:
        modified = datetime.fromtimestamp(status.getModificationTime() / 1000, UTC).replace(tzinfo=None)
        path = status.getPath()
        return FileStatus(name, str(path.toString()), str(path.toUri().toString()), int(status.getLen()), modified)


def normal_uri(uri: str) -> str:
    """One spelling of local URIs: ``file:///x`` and ``file:/x`` are the same file."""
    return re.sub(r"^file:/+", "file:/", uri)


def java_message(error: Exception) -> str:
    """The one line of a Java exception that a person can use."""
    text = str(getattr(error, "java_exception", None) or error)
    return text.strip().splitlines()[0][:300] if text.strip() else type(error).__name__
