"""Which unchanged files are read again: for a changed format, at the user's word, for what they share with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sparkrec.errors import UserError
from sparkrec.ingest.log_files import KnownFile
from sparkrec.settings.config import config_hash
from sparkrec.settings.formats import LogFormat
from sparkrec.settings.sections import IngestConfig

ALL = "all"


def format_hash(fmt: LogFormat, ingest: IngestConfig) -> str:
    """A hash of all that decides how a row is read and judged, and of nothing else."""
    reading = replace(
        fmt, name="", event_weights=dict.fromkeys(fmt.event_types, 0.0), purchase_events=(), session_events=(),
        impression_events=(),
        recommend_seen=False, item_features=(), user_features=(), title=None, defaults={},
    )  # fmt: skip
    return config_hash(reading, ingest.min_ts, ingest.max_quantity)


def repeated(known: Mapping[str, KnownFile], there: Collection[str], now: str, asked: Collection[str]) -> set[str]:
    """The files with refused rows that another format refused, and those that are asked for.

    Args:
        known: Files taken in.
        there: Names of the files that are there to be read. Of those that are not, the rows stay.
        now: Hash of the format.
        asked: Names, or ``all`` (``ingest.again``).

    Raises:
        UserError: No such file.
    """
    require_there(asked, there)
    mended = {name for name, file in known.items() if file.rows_refused and file.format_hash not in (None, now)}
    wanted = set(known) if ALL in asked else set(asked)
    return (mended | wanted) & known.keys() & set(there)


def require_there(asked: Collection[str], there: Collection[str]) -> None:
    """Raises UserError where a file that is asked for is not there to be read."""
    strange = sorted(set(asked) - {ALL} - set(there))
    if strange:
        fix = "a name as the table files has it and that is there, or all"
        raise UserError("no such file to read again", where=", ".join(strange), fix=fix)


def sharing(known: Mapping[str, KnownFile], changed: Collection[str], now: str) -> set[str]:
    """The files with events that changed files kept in their stead: those events may be theirs to keep now.

    A file that another format judged may lose rows itself when it is read again: then those that share with it follow.

    Args:
        known: Files taken in.
        changed: Files whose rows may be others than before.
        now: Hash of the format.
    """
    found: set[str] = set()
    changed = set(changed)
    while changed:
        more = {n for n, file in known.items() if n not in found and not changed.isdisjoint(file.shares_with)}
        found |= more
        changed = {name for name in more if known[name].format_hash != now}
    return found
