"""Small files (models, manifests) on any file system that pyarrow reaches; plain paths are local.

Tables go through Spark (``warehouse.store``); this is for bytes and JSON that a driver or a training rank handles.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from sparkrec.errors import UserError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def resolve(path: str) -> tuple[FileSystem, str]:
    """The file system of a URI or plain path, and the path inside it.

    Raises:
        UserError: The scheme is unknown or the file system cannot be reached.
    """
    from pyarrow import fs

    if path.startswith("file:"):
        return fs.LocalFileSystem(), unquote(urlsplit(path).path)
    if "://" not in path:
        return fs.LocalFileSystem(), os.path.abspath(path)
    uri = path.replace("s3a://", "s3://", 1)  # Hadoop's spelling
    try:
        filesystem, inside = fs.FileSystem.from_uri(uri)
    except Exception as error:  # pyarrow raises several kinds
        raise UserError("file system cannot be used", where=path, fix=str(error)) from error
    return filesystem, inside


def uri(path: str) -> str:
    """The path as a URI: plain paths become ``file:///…``."""
    if "://" in path and not path.startswith("file:"):
        return path.replace("s3a://", "s3://", 1)
    return Path(resolve(path)[1]).as_uri()


def join(folder: str, *names: str) -> str:
    """``folder/name/…`` for URIs and plain paths alike."""
    return "/".join([folder.rstrip("/"), *names])


def literal_path(path: str) -> str:
    """The path with glob characters escaped, so that Spark takes it as it is."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    from pyarrow.fs import FileType

    filesystem, inside = resolve(path)
    return filesystem.get_file_info(inside).type != FileType.NotFound


def list_names(folder: str) -> list[str]:
    """Sorted base names of what is directly in a folder; empty where there is no folder."""
    from pyarrow.fs import FileSelector

    filesystem, inside = resolve(folder)
    return sorted(info.base_name for info in filesystem.get_file_info(FileSelector(inside, allow_not_found=True)))


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    filesystem, inside = resolve(path)
    try:
        with filesystem.open_input_stream(inside) as stream:
            return bytes(stream.read())
    except FileNotFoundError as error:
        raise UserError("no such file", where=path) from error
    except OSError as error:
        raise UserError("file cannot be read", where=path, fix=str(error)) from error


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file so that readers see the old one or the whole new one; folders are made as needed.

    On a local or HDFS path a temporary file is renamed; object stores publish a file when it is closed.

    Raises:
        UserError: The place cannot be written.
    """
    filesystem, inside = resolve(path)
    temporary = f"{inside}.{uuid.uuid4().hex}.tmp"
    try:
        filesystem.create_dir(os.path.dirname(inside), recursive=True)
        if filesystem.type_name not in ("local", "hdfs"):
            with filesystem.open_output_stream(inside) as stream:
                stream.write(data)
            return
        with filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        filesystem.move(temporary, inside)
    except OSError as error:
        raise UserError("file cannot be written", where=path, fix=str(error)) from error


def create(path: str, data: bytes) -> bool:
    """Writes a file only where there is none, and says whether it did; readers may see it before all of it is there.

    On a local path no two succeed, whatever the file system: neither links nor locks are asked of it. Elsewhere two at
    the same moment can: this is the place for an object store's conditional put.

    Raises:
        UserError: The place cannot be written.
    """
    filesystem, inside = resolve(path)
    if filesystem.type_name != "local":
        if exists(path):
            return False
        write_bytes(path, data)
        return read_bytes(path) == data
    try:
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        with open(inside, "xb") as file:  # O_CREAT | O_EXCL
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.unlink(inside)
                raise
    except FileExistsError:
        return False
    except OSError as error:
        raise UserError("file cannot be written", where=path, fix=str(error)) from error
    return True


def move(path: str, to: str) -> bool:
    """Renames a file, and says whether it was still there.

    Raises:
        UserError: It cannot be renamed.
    """
    filesystem, inside = resolve(path)
    try:
        filesystem.move(inside, resolve(to)[1])
    except OSError as error:
        if not exists(path):  # which each file system says in words of its own
            return False
        raise UserError("file cannot be renamed", where=path, fix=str(error)) from error
    return True


def modified_at(path: str) -> datetime | None:
    """When a file was last written (UTC), None where there is none; the epoch where the file system does not say."""
    from pyarrow.fs import FileType

    filesystem, inside = resolve(path)
    info = filesystem.get_file_info(inside)
    return None if info.type == FileType.NotFound else info.mtime or datetime.fromtimestamp(0, UTC)


def remove(path: str) -> None:
    """Removes a file or a folder with all in it; nothing happens where there is none."""
    from pyarrow.fs import FileType

    filesystem, inside = resolve(path)
    kind = filesystem.get_file_info(inside).type
    if kind == FileType.Directory:
        filesystem.delete_dir(inside)
    elif kind == FileType.File:
        filesystem.delete_file(inside)


def read_json(path: str) -> Any:
    """The JSON value in a file.

    Raises:
        UserError: There is no such file, or it does not hold JSON.
    """
    data = read_bytes(path)
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError("file is damaged: not valid JSON", where=path, fix=str(error)) from error


def write_json(path: str, value: Any) -> None:
    """Writes a JSON-able value as a file, in the manner of ``write_bytes``."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
