"""Compare and write where a storage cannot do both in one: by a file beside it that only one can create.

The file that is replaced is always there, so nobody who looks meanwhile takes it for gone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sparkrec.storage.files import Info
from sparkrec.storage.places import Place

CLAIMED = timedelta(minutes=1)  # the right to replace a file is somebody's for so long


def replace(
    place: Place,
    old: bytes,
    new: bytes,
    *,
    info: Callable[[Place], Info | None],
    read: Callable[[Place], bytes],
    write: Callable[[Place, bytes], None],
    create: Callable[[Place, bytes], bool],
    remove: Callable[[Place], None],
) -> bool:
    """See ``files.Files.replace``; the functions are those of the storage."""
    claim = dataclasses.replace(place, inside=f"{place.inside}.{hashlib.sha256(old).hexdigest()[:16]}.claim")
    if not create(claim, b""):  # one can have it for this content
        found = info(claim)
        if found and found.modified_at and datetime.now(UTC) - found.modified_at > CLAIMED:
            remove(claim)  # whoever had it has ended
        return False
    try:
        if read(place) != old:
            return False
        write(place, new)
        return True
    except FileNotFoundError:
        return False
    finally:
        remove(claim)
