"""Files through Hadoop's file system in the driver's JVM: what Spark can read, this can list."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class FileStatus:
    """A file: path relative to the folder listed, the path Spark loads, its URI, bytes, modification time (UTC)."""

    name: str
    path: str
    uri: str
    size: int
    modified_at: datetime


class FileSystem:
    """The few file operations that ingest needs, on any file system that Hadoop knows."""

    def __init__(self, spark: SparkSession) -> None:
        self._jvm: Any = spark._jvm
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

    def head(self, file: FileStatus, n_bytes: int = 16384) -> bytes:
        """The first bytes of a file, unpacked where its name says that it is compressed."""
        stream = self._stream(file)
        try:
            codec = self._jvm.org.apache.hadoop.io.compress.CompressionCodecFactory(self._conf).getCodec(
                self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI(file.uri))
            )
            unpacked = codec.createInputStream(stream) if codec is not None else stream
            return bytes(unpacked.readNBytes(n_bytes))
        finally:
            stream.close()

    def parquet_schema(self, file: FileStatus) -> str:
        """The columns of a Parquet file as its footer declares them, a line each."""
        path = self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI(file.uri))
        hadoop = self._jvm.org.apache.parquet.hadoop
        reader = hadoop.ParquetFileReader.open(hadoop.util.HadoopInputFile.fromPath(path, self._conf))
        try:
            schema = str(reader.getFileMetaData().getSchema().toString())
        finally:
            reader.close()
        return schema.partition("\n")[2]  # the first line is the writer's name for it

    def sha256(self, file: FileStatus) -> str:
        """Hash of the file's bytes, streamed in the JVM."""
        stream = self._stream(file)
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

    def _stream(self, file: FileStatus) -> Any:
        path = self._jvm.org.apache.hadoop.fs.Path(self._jvm.java.net.URI(file.uri))
        return path.getFileSystem(self._conf).open(path)

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
