"""Small files (models, manifests, the lock) wherever the warehouse is: local, HDFS, S3, Google's or Azure's storage.

Tables go through Spark (``warehouse.store``) and delta-rs (``warehouse.reading``); this is for bytes and JSON that a
driver or a training rank handles. How each kind of storage does it is in ``local``, ``hdfs`` and
``objects``, which all have the functions of :class:`Files`.
"""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from sparkrec.errors import UserError
from sparkrec.storage.places import HDFS, LOCAL, Place, place_of

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


@dataclass(frozen=True)
class Info:
    """What is at a place: a folder or a file, and when the file was last written (UTC, None where it is not said)."""

    folder: bool
    modified_at: datetime | None = None


class Files(Protocol):
    """What a kind of storage can do. All raise ``OSError`` where it does not answer or refuses."""

    def info(self, place: Place) -> Info | None:
        """What is there, None for nothing."""

    def names(self, folder: Place) -> list[str]:
        """Base names of what is directly in a folder; none where there is no folder."""

    def read(self, place: Place) -> bytes:
        """A file's content; ``FileNotFoundError`` where there is none."""

    def write(self, place: Place, data: bytes) -> None:
        """Writes a file, and its folders, so that readers see the old one or the whole new one."""

    def create(self, place: Place, data: bytes) -> bool:
        """Writes a file where there is none; of several that try at once one succeeds."""

    def replace(self, place: Place, old: bytes, new: bytes) -> bool:
        """Writes a file that holds ``old``; of several that try at once one succeeds."""

    def move(self, place: Place, to: Place) -> bool:
        """Renames a file; False where it is not there."""

    def remove(self, place: Place) -> None:
        """Removes a file or a folder with all in it, if there is one."""

    def arrow(self, place: Place) -> tuple[FileSystem, str]:
        """Pyarrow's file system, and the path in it."""


def resolve(path: str) -> tuple[FileSystem, str]:
    """Pyarrow's file system of a path, and the path inside it.

    Raises:
        UserError: The scheme is not supported, or the file system cannot be reached.
    """
    files, place = _opened(path)
    try:
        return files.arrow(place)
    except OSError as error:
        raise UserError("file system cannot be used", where=path, fix=first_line(error)) from error


def join(folder: str, *names: str) -> str:
    """``folder/name/…`` for URIs and plain paths alike."""
    return "/".join([folder.rstrip("/"), *names])


def literal_path(path: str) -> str:
    """The path with glob characters escaped, so that Spark takes it as it is."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", path)


def exists(path: str) -> bool:
    """Whether there is a file or folder.

    Raises:
        OSError: Storage does not answer.
    """
    files, place = _opened(path)
    return files.info(place) is not None


def list_names(folder: str) -> list[str]:
    """Sorted base names of what is directly in a folder; empty where there is no folder.

    Raises:
        OSError: Storage does not answer.
    """
    files, place = _opened(folder)
    return sorted(files.names(place))


def read_bytes(path: str) -> bytes:
    """The content of a file.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    files, place = _opened(path)
    try:
        return files.read(place)
    except FileNotFoundError as error:
        raise UserError("no such file", where=path) from error
    except OSError as error:
        raise UserError("file cannot be read", where=path, fix=first_line(error)) from error


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file so that readers see the old one or the whole new one; folders are made as needed.

    On a local or HDFS path a temporary file is renamed; object stores publish a file when it is whole.

    Raises:
        UserError: The place cannot be written.
    """
    files, place = _opened(path)
    try:
        files.write(place, data)
    except OSError as error:
        raise _unwritten(path, error) from error


def create(path: str, data: bytes) -> bool:
    """Writes a file only where there is none, and says whether it did; readers may see it before all of it is there.

    No two succeed: on a local path by ``O_EXCL`` (neither links nor locks are asked of the file system), on HDFS as the
    namenode says, on object stores by a conditional put (``If-None-Match: *`` and the like).

    Raises:
        UserError: The place cannot be written.
    """
    files, place = _opened(path)
    try:
        return files.create(place, data)
    except OSError as error:
        raise _unwritten(path, error) from error


def replace(path: str, old: bytes, new: bytes) -> bool:
    """Writes a file only where it still holds ``old``, and says whether it did.

    No two succeed: on object stores by a conditional put (``If-Match``), elsewhere by a file beside it that only one
    can create (``storage.claims``).

    Raises:
        UserError: The place cannot be read or written.
    """
    files, place = _opened(path)
    try:
        return files.replace(place, old, new)
    except OSError as error:
        raise _unwritten(path, error) from error


def move(path: str, to: str) -> bool:
    """Renames a file, and says whether it was still there.

    Raises:
        UserError: It cannot be renamed.
    """
    files, place = _opened(path)
    try:
        return files.move(place, place_of(to))
    except OSError as error:
        raise UserError("file cannot be renamed", where=path, fix=first_line(error)) from error


def modified_at(path: str) -> datetime | None:
    """When a file was last written (UTC), None where there is none; the epoch where the file system does not say.

    Raises:
        OSError: Storage does not answer.
    """
    files, place = _opened(path)
    info = files.info(place)
    return None if info is None else info.modified_at or datetime.fromtimestamp(0).astimezone()


def remove(path: str) -> None:
    """Removes a file or a folder with all in it; nothing happens where there is none.

    Raises:
        OSError: Storage does not answer.
    """
    files, place = _opened(path)
    files.remove(place)


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


def first_line(error: BaseException) -> str:
    """The first line of an error that says anything; else its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _opened(path: str) -> tuple[Files, Place]:
    """What handles the files of a path, and its place."""
    place = place_of(path)
    kind = {LOCAL: "local", HDFS: "hdfs"}.get(place.store, "objects")
    files: Files = importlib.import_module(f"sparkrec.storage.{kind}")  # type: ignore[assignment]
    return files, place


def _unwritten(path: str, error: OSError) -> UserError:
    return UserError("file cannot be written", where=path, fix=first_line(error))
