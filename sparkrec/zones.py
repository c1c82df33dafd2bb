"""Time zones by name, and the days in them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from sparkrec.errors import UserError


def zone_of(name: str | None) -> tzinfo:
    """The time zone of a name; None: UTC.

    Raises:
        UserError: No such zone.
    """
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError) as error:  # unknown, a folder of zones, no name at all
        fix = "a name of the IANA database, e.g. Europe/London"
        raise UserError("unknown time zone", where=name, fix=fix) from error


def yesterday(name: str | None) -> date:
    """The last day that is over in a zone."""
    return datetime.now(zone_of(name)).date() - timedelta(days=1)
