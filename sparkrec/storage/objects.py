"""Files of object stores (S3, Google, Azure) by obstore: see ``files.Files`` for what the functions do.

Address and credentials come from the environment (``storage.access``), as delta-rs takes them: both are the Rust
crate object_store. There are no folders: a folder is there where a key lies below it. Keys of no bytes that stand for
folders (Hadoop makes them) count as nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.storage.files import Info, first_line
from sparkrec.storage.places import AZURE, GCS, S3, Place

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def info(place: Place) -> Info | None:
    import obstore

    with _errors():
        with suppress(FileNotFoundError):
            found = obstore.head(_store(place.store, place.root), place.inside)
            if found["size"] or not _below(place):
                return Info(False, found["last_modified"])
        return Info(True) if _below(place) else None


def names(folder: Place) -> list[str]:
    with _errors():
        depth = len(folder.inside.split("/")) if folder.inside else 0
        return sorted({key.split("/")[depth] for key in _keys(folder)})


def read(place: Place) -> bytes:
    import obstore

    with _errors():
        return bytes(obstore.get(_store(place.store, place.root), place.inside).bytes())


def write(place: Place, data: bytes) -> None:
    import obstore

    with _errors():
        obstore.put(_store(place.store, place.root), place.inside, data)


def create(place: Place, data: bytes) -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError

    with _errors():
        try:
            obstore.put(_store(place.store, place.root), place.inside, data, mode="create")
        except AlreadyExistsError:
            return read(place) == data  # the first of two tries may have come through without an answer
    return True


def replace(place: Place, old: bytes, new: bytes) -> bool:
    import obstore
    from obstore.exceptions import PreconditionError

    store = _store(place.store, place.root)
    with _errors():
        try:
            found = obstore.get(store, place.inside)
            if bytes(found.bytes()) != old:
                return False
            mode: Any = {key: found.meta[key] for key in ("e_tag", "version") if found.meta.get(key)}
            obstore.put(store, place.inside, new, mode=mode)
        except FileNotFoundError:
            return False
        except PreconditionError:
            return read(place) == new
    return True


def move(place: Place, to: Place) -> bool:
    import obstore

    with _errors():
        try:
            obstore.rename(_store(place.store, place.root), place.inside, to.inside)
        except FileNotFoundError:
            return False
    return True


def remove(place: Place) -> None:
    import obstore

    store = _store(place.store, place.root)
    with _errors():
        for page in obstore.list(store, place.inside):
            obstore.delete(store, [entry["path"] for entry in page])
        with suppress(FileNotFoundError):  # S3 says nothing of it, others do
            obstore.delete(store, place.inside)


def arrow(place: Place) -> tuple[FileSystem, str]:
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    _store(place.store, place.root)  # says what is missing
    from obstore import fsspec

    make: Any = fsspec.FsspecStore  # its types are one overload for each store
    # Not from fsspec's cache: in a process that is forked it would be closed, and wait for threads that are not there.
    opened = make(
        {S3: "s3", GCS: "gs", AZURE: "abfss"}[place.store],
        skip_instance_cache=True,
        **_credentials(place.store, place.root),
    )
    return PyFileSystem(FSSpecHandler(opened)), f"{place.root.split('://', 1)[1]}/{place.inside}"


def _keys(folder: Place) -> Iterator[str]:
    """Keys below a folder, those that stand for folders left out."""
    import obstore

    for page in obstore.list(_store(folder.store, folder.root), folder.inside or None):
        yield from (entry["path"] for entry in page if entry["size"])


def _below(place: Place) -> bool:
    return any(True for _ in _keys(place))


@functools.cache
def _store(kind: str, root: str) -> Any:
    """The bucket or container; one a process."""
    try:
        from obstore.store import from_url
    except ImportError as error:
        raise UserError(
            "object stores need the package obstore", where=root, fix="pip install sparkrec[stores]"
        ) from error
    return from_url(root.replace("s3a://", "s3://", 1), **_credentials(kind, root))


def _credentials(kind: str, root: str) -> dict[str, Any]:
    """Those of ``AWS_PROFILE``, for which obstore asks boto3; what else there is it finds itself."""
    if kind != S3 or not os.environ.get("AWS_PROFILE") or os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        fix = "pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise UserError("AWS_PROFILE needs the package boto3", where=root, fix=fix) from error
    return {"credential_provider": Boto3CredentialProvider()}


@contextmanager
def _errors() -> Iterator[None]:
    """Obstore's errors as ``OSError``."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith("obstore"):
            raise OSError(first_line(error)) from error
        raise
