"""The bytes of an image, and what tells that they are still the same: nothing that has not changed is read again."""

from __future__ import annotations

import time
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from sparkrec.errors import UserError
from sparkrec.settings.sections import ImageConfig
from sparkrec.storage import files

LACKING, BROKEN, LARGE = "lacking", "broken", "too_large"
_SETTLED_S = 2.0  # what has changed since may change again without another time of its change
_NOT_MODIFIED = 304
_ASKED = {"etag": "If-None-Match", "modified": "If-Modified-Since"}


class UnusableError(Exception):
    """An image that cannot be had; the reason is its only argument."""


def read(place: str, config: ImageConfig, stamp: str = "") -> tuple[bytes | None, str]:
    """Reads an image unless it is the one that is known.

    Args:
        place: An http(s) address, or a path of any storage.
        config: Bounds of size and time.
        stamp: What an earlier call returned; empty: it is read.

    Returns:
        The bytes, None where they are the same as before; and their stamp: of a file its size and the time of its
        change, of an address the strong ETag (RFC 9110, sec. 8.8.3), else Last-Modified. Empty where there is nothing
        to tell a later change by.

    Raises:
        UnusableError: There is no image, or it is too large.
    """
    of_web = place.lower().startswith(("http://", "https://"))
    try:
        return _from_web(place, config, stamp) if of_web else _from_file(place, config, stamp)
    except (OSError, HTTPException, ValueError, UserError) as error:  # pyarrow's and urllib's are of these
        raise UnusableError(LACKING) from error


def _from_file(path: str, config: ImageConfig, known: str) -> tuple[bytes | None, str]:
    filesystem, inside = files.resolve(path)
    info = filesystem.get_file_info(inside)
    settled = info.mtime_ns is not None and _settled(info.mtime_ns / 1e9)
    stamp = f"{info.size} {info.mtime_ns}" if settled else ""
    if stamp and stamp == known:
        return None, stamp
    with filesystem.open_input_stream(inside) as stream:
        return _bounded(stream.read(_most(config) + 1), config), stamp


def _from_web(address: str, config: ImageConfig, known: str) -> tuple[bytes | None, str]:
    kind, _, value = known.partition(" ")
    asked = {_ASKED[kind]: value} if kind in _ASKED else {}
    try:
        with urlopen(Request(address, headers={"User-Agent": "sparkrec", **asked}), timeout=config.timeout_s) as answer:
            return _bounded(answer.read(_most(config) + 1), config), _told(answer.headers)
    except HTTPError as error:
        if asked and error.code == _NOT_MODIFIED:
            return None, known
        raise


def _told(headers: Message) -> str:
    """The stamp that an answer gives."""
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    if etag and not etag.startswith("W/"):
        return f"etag {etag}"
    return f"modified {modified}" if modified and _settled(parsedate_to_datetime(modified).timestamp()) else ""


def _settled(changed: float) -> bool:
    """Whether a change (seconds since 1970) is so long ago that a later one has another time."""
    return time.time() - changed > _SETTLED_S


def _most(config: ImageConfig) -> int:
    return int(config.max_mb * 2**20)


def _bounded(data: bytes, config: ImageConfig) -> bytes:
    if len(data) > _most(config):
        raise UnusableError(LARGE)
    return data
