"""Files of this machine, and of what is mounted on it: see ``files.Files`` for what the functions do."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sparkrec.storage import claims
from sparkrec.storage.files import Info
from sparkrec.storage.places import Place

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def info(place: Place) -> Info | None:
    try:
        found = os.stat(place.inside)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Info(os.path.isdir(place.inside), datetime.fromtimestamp(found.st_mtime, UTC))


def names(folder: Place) -> list[str]:
    try:
        return os.listdir(folder.inside)
    except FileNotFoundError:
        return []


def read(place: Place) -> bytes:
    with open(place.inside, "rb") as file:
        return file.read()


def write(place: Place, data: bytes) -> None:
    _make_folder(place)
    temporary = f"{place.inside}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, place.inside)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def create(place: Place, data: bytes) -> bool:
    _make_folder(place)
    try:
        with open(place.inside, "xb") as file:  # O_CREAT | O_EXCL
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.unlink(place.inside)
                raise
    except FileExistsError:
        return False
    return True


def replace(place: Place, old: bytes, new: bytes) -> bool:
    return claims.replace(place, old, new, info=info, read=read, write=write, create=create, remove=remove)


def move(place: Place, to: Place) -> bool:
    try:
        os.rename(place.inside, to.inside)
    except FileNotFoundError:
        if not os.path.isdir(os.path.dirname(to.inside)):
            raise
        return False
    return True


def remove(place: Place) -> None:
    if os.path.isdir(place.inside) and not os.path.islink(place.inside):
        shutil.rmtree(place.inside)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(place.inside)


def arrow(place: Place) -> tuple[FileSystem, str]:
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem(), place.inside


def _make_folder(place: Place) -> None:
    os.makedirs(os.path.dirname(place.inside), exist_ok=True)
