"""Which files a night takes in."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sparkrec.errors import UserError
from sparkrec.ingest.hadoop import FileStatus
from sparkrec.settings.formats import Reader

ISO_DATE = re.compile(r"(?<!\d)(\d{4}-\d{2}-\d{2})(?!\d)")


@dataclass(frozen=True)
class KnownFile:
    """A row of the ``files`` table; without a hash where an attempt broke off after the file's rows may have gone.

    The others are not known of files that an earlier version of the package took in.
    """

    size: int
    modified_at: datetime
    sha256: str
    format_hash: str | None = None
    rows_refused: int = 0
    shares_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selection:
    """The files of a folder, sorted out.

    Attributes:
        new: Never taken in; to be read.
        replaced: Taken in and changed since; their rows are to be replaced.
        again: Taken in and unchanged; their rows are to be replaced all the same.
        unchanged: Taken in and as they were.
        later: Their name holds a date after the night's.
        ignored: No reader of the format is for them.
    """

    new: tuple[tuple[FileStatus, Reader], ...]
    replaced: tuple[tuple[FileStatus, Reader], ...]
    again: tuple[tuple[FileStatus, Reader], ...]
    unchanged: int
    later: int
    ignored: int

    @property
    def to_read(self) -> tuple[tuple[FileStatus, Reader], ...]:
        """All files to read, in order of name."""
        return tuple(sorted(self.new + self.replaced + self.again, key=lambda pair: pair[0].name))


def file_date(name: str) -> date | None:
    """The last ISO date in a file's name or folders, if any."""
    for text in reversed(ISO_DATE.findall(name)):
        try:
            return date.fromisoformat(text)
        except ValueError:
            continue
    return None


def reader_for(name: str, readers: Iterable[Reader]) -> Reader | None:
    """The first reader with a glob that fits the file's name; the name of a compressed text without its ending too."""
    return next((reader for reader in readers if reader.takes(name)), None)


def select_files(
    listed: Iterable[tuple[FileStatus, Reader | None]],
    known: Mapping[str, KnownFile],
    hash_of: Callable[[FileStatus], str],
    run_date: date,
    on_changed: str,
    again: Container[str] = (),
) -> Selection:
    """Sorts the files of a folder out.

    Args:
        listed: Files with their readers.
        known: The ``files`` table by name.
        hash_of: SHA-256 of a file's bytes, asked only where size is equal and time is not.
        run_date: The night; files dated later are left for later.
        on_changed: ``refuse`` or ``replace`` (``ingest.on_changed_file``).
        again: Known files that are read again, whatever night they are of.

    Raises:
        UserError: A file changed since it was taken in, and ``on_changed`` is ``refuse``.
    """
    new, replaced, repeated, unchanged, later, ignored = [], [], [], 0, 0, 0
    for file, reader in listed:
        dated = file_date(file.name)
        if reader is None:
            ignored += 1
        elif dated is not None and dated > run_date and file.name not in again:
            later += 1
        elif file.name not in known:
            new.append((file, reader))
        elif is_unchanged(file, known[file.name], hash_of):
            if file.name in again:
                repeated.append((file, reader))
            else:
                unchanged += 1
        elif on_changed == "replace" or known[file.name].size == 0:  # nothing was in it that could have changed
            replaced.append((file, reader))
        else:
            fix = "restore it, or set ingest.on_changed_file=replace"
            raise UserError("log file changed since it was taken in", where=file.path, fix=fix)
    return Selection(tuple(new), tuple(replaced), tuple(repeated), unchanged, later, ignored)


def is_unchanged(file: FileStatus, known: KnownFile, hash_of: Callable[[FileStatus], str]) -> bool:
    """Whether a file is as it was: same size, and same time or else same bytes."""
    if file.size != known.size:
        return False
    return file.modified_at == known.modified_at or hash_of(file) == known.sha256
