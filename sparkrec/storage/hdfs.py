"""Files of HDFS by ``hdfs-native``, which needs neither Java nor libhdfs: see ``files.Files`` for the functions.

It reads ``core-site.xml`` and ``hdfs-site.xml`` of ``HADOOP_CONF_DIR`` (nameservices, Kerberos).
"""

from __future__ import annotations

import functools
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sparkrec.errors import UserError
from sparkrec.storage import claims
from sparkrec.storage.files import Info
from sparkrec.storage.places import Place

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def info(place: Place) -> Info | None:
    try:
        found = _client(place.root).get_file_info(place.inside)
    except FileNotFoundError:
        return None
    return Info(found.isdir, datetime.fromtimestamp(found.modification_time / 1000, UTC))


def names(folder: Place) -> list[str]:
    try:
        return [status.path.rsplit("/", 1)[-1] for status in _client(folder.root).list_status(folder.inside)]
    except FileNotFoundError:
        return []


def read(place: Place) -> bytes:
    with _client(place.root).read(place.inside) as file:
        return bytes(file.read())


def write(place: Place, data: bytes) -> None:
    temporary = f"{place.inside}.{uuid.uuid4().hex}.tmp"
    _create(place.root, temporary, data)
    _client(place.root).rename(temporary, place.inside, overwrite=True)


def create(place: Place, data: bytes) -> bool:
    try:
        _create(place.root, place.inside, data)
    except FileExistsError:
        return False
    return True


def replace(place: Place, old: bytes, new: bytes) -> bool:
    return claims.replace(place, old, new, info=info, read=read, write=write, create=create, remove=remove)


def move(place: Place, to: Place) -> bool:
    try:
        _client(place.root).rename(place.inside, to.inside)
    except FileNotFoundError as error:
        if "rename source" not in str(error):  # as the namenode says it; else the folder is not there
            raise
        return False
    return True


def remove(place: Place) -> None:
    if info(place) is not None:
        _client(place.root).delete(place.inside, recursive=True)


def arrow(place: Place) -> tuple[FileSystem, str]:
    from hdfs_native.fsspec import HdfsFileSystem
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    _client(place.root)  # says what is missing
    address = urlsplit(place.root)
    # Not from fsspec's cache: in a process that is forked it would be closed, and wait for threads that are not there.
    return PyFileSystem(
        FSSpecHandler(HdfsFileSystem(host=address.hostname, port=address.port, skip_instance_cache=True))
    ), place.inside


def _create(root: str, path: str, data: bytes) -> None:
    from hdfs_native import WriteOptions

    with _client(root).create(path, WriteOptions(overwrite=False, create_parent=True)) as file:
        file.write(data)


@functools.cache
def _client(root: str) -> Any:
    """The connection to a namenode; one a process."""
    try:
        from hdfs_native import Client
    except ImportError as error:
        raise UserError("HDFS needs the package hdfs-native", where=root, fix="pip install sparkrec[stores]") from error
    return Client(root)
