"""One night at a time on a warehouse: a lock file with an owner and an expiry, and a fence before each write."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from sparkrec.errors import UserError
from sparkrec.log import warn_event
from sparkrec.warehouse import files
from sparkrec.warehouse.owner import Owner, this_process

LOCK = "_lock.json"
_LOOKS, _BETWEEN_S = 4, 0.1  # a lock that is being moved or written is looked at again


class Lock:
    """A lock that this process holds. ``check`` is the fence: whatever writes calls it first."""

    def __init__(self, path: str, me: Owner, expiry_s: float) -> None:
        self._path, self._me, self._expiry_s = path, me, expiry_s
        self._lost = threading.Event()

    def check(self) -> None:
        """Returns where the lock is still this process's, as storage says now.

        A read that fails says nothing: the lock is this process's until it expires.

        Raises:
            UserError: It is another's or gone, or it has expired and storage does not answer.
        """
        if not self._lost.is_set():
            try:
                if self._is_mine():
                    return
            except (UserError, OSError) as error:
                if not self._me.has_expired(datetime.now(UTC)):
                    warn_event("lock_not_read", reason=str(error))
                    return
        self._lost.set()
        raise UserError(
            f"the warehouse's lock was lost while {self._me.run_id} ran, which writes no more",
            where=self._path,
            fix="another night may be running: run this one again after it, what is done is skipped",
        )

    def renew(self) -> None:
        """Moves the expiry on. One that has passed already is renewed as others would take the lock over.

        Raises:
            UserError: Storage does not answer, or the lock is lost.
            OSError: Storage does not answer.
        """
        if not self._is_mine():
            self.check()
            return
        new = replace(self._me, expires_at=_in(self._expiry_s))
        if not self._me.has_expired(datetime.now(UTC)):
            files.write_bytes(self._path, _json(new))
        elif not (self._moved_away() and files.create(self._path, _json(new))):
            self.check()
            return
        self._me = new

    def keep(self, stop: threading.Event) -> None:
        """Renews the lock until it is given back or lost; what storage refuses is tried again."""
        while not stop.wait(self._expiry_s / 3):
            try:
                self.renew()
            except Exception as error:  # nobody else would hear of it
                if self._lost.is_set():
                    warn_event("lock_lost", reason=str(error))
                    return
                warn_event("lock_not_renewed", reason=str(error))

    def give_back(self) -> None:
        """Removes the lock, where it is this process's."""
        try:
            if not self._lost.is_set() and self._is_mine():
                files.remove(self._path)
        except (UserError, OSError) as error:  # whoever comes next sees that this process has ended
            warn_event("lock_not_given_back", reason=str(error))

    def _moved_away(self) -> bool:
        return _moved_away(self._path, self._expiry_s, self._me.is_attempt)

    def _is_mine(self) -> bool:
        """Whether the lock names this attempt; one that is on its way from one name to another is waited for."""
        for look in range(_LOOKS):
            holder = _read(self._path, self._expiry_s)
            if holder is not None and holder.named:
                return holder.is_attempt(self._me)
            time.sleep(_BETWEEN_S if look < _LOOKS - 1 else 0)
        return False


@contextmanager
def locked(warehouse: str, run_id: str, expiry_s: float) -> Iterator[Lock]:
    """Holds the warehouse's lock, renewing it every third of its expiry.

    The file is made by ``files.create``, which on a local path no two can do; what object stores need for that is
    decided there.

    Args:
        warehouse: Its folder.
        run_id: The attempt, named to whoever is refused.
        expiry_s: Seconds after which a lock that nobody renews is taken over.

    Yields:
        The lock: its ``check`` must come before every write.

    Raises:
        UserError: Another night holds it.
    """
    path = files.join(warehouse, LOCK)
    me = this_process(run_id, _in(expiry_s))
    _take(path, me, expiry_s)
    lock, stop = Lock(path, me, expiry_s), threading.Event()
    thread = threading.Thread(target=lock.keep, args=(stop,), name="warehouse-lock", daemon=True)
    thread.start()
    try:
        yield lock
        lock.check()  # it may have been lost while the last write went on
    finally:
        stop.set()
        thread.join()
        lock.give_back()


def _take(path: str, me: Owner, expiry_s: float) -> None:
    """Makes the lock this attempt's; raises ``UserError`` where another one holds it.

    Only ``files.create`` makes a lock, and no two can do that at once. Between looking at one and taking it away
    another attempt may have taken it over, so what is moved aside is looked at again: a lock that is not the dead one
    is put back. If a third has made a lock meanwhile, that stays and the one moved aside is lost: its owner sees it
    before its next write (``Lock.check``) and stops.
    """
    for _ in range(_LOOKS):  # another night may take over the same dead lock first
        if files.create(path, _json(me)):
            return
        holder = _read(path, expiry_s)
        if holder is None:
            continue
        if not holder.named and not holder.has_expired(datetime.now(UTC)):  # it is being written
            time.sleep(_BETWEEN_S)
            holder = _read(path, expiry_s) or holder
        if not holder.is_dead(datetime.now(UTC)):
            raise _refused(path, holder)
        if _moved_away(path, expiry_s, holder.__eq__):
            warn_event("lock_taken_over", run_id=holder.run_id, host=holder.host, pid=holder.pid)
    raise UserError("another night has just begun on this warehouse", where=path, fix="wait for it")


def _refused(path: str, holder: Owner) -> UserError:
    if not holder.named:
        fix = f"remove it if no night is running; it is taken over after {holder.expires_at}"
        return UserError("the warehouse's lock is damaged, or another night has just begun", where=path, fix=fix)
    return UserError(
        "another night is running on this warehouse",
        where=f"{holder.run_id}, process {holder.pid} on {holder.host}",
        fix=f"wait for it, or end that process; seen from elsewhere, its lock {path} expires at {holder.expires_at}",
    )


def _moved_away(path: str, expiry_s: float, wanted: Callable[[Owner], bool]) -> bool:
    """Takes a lock out of the way, and says whether it was there and the wanted one; another is put back.

    Of several that try at once the renaming lets one through. Who put a new lock there in between finds it gone for a
    moment, and looks again before believing it.
    """
    aside = f"{path}.{uuid.uuid4().hex}"
    if not files.move(path, aside):
        return False
    moved = _read(aside, expiry_s)
    right = moved is None or wanted(moved)
    if not right:
        files.create(path, files.read_bytes(aside))
    files.remove(aside)
    return right


def _read(path: str, expiry_s: float) -> Owner | None:
    """The owner; None where the file is gone. Of a file that says nothing yet only the age is known.

    Raises:
        UserError: It cannot be read.
        OSError: The like, from the look at it.
    """
    modified = files.modified_at(path)
    if modified is None:
        return None
    try:
        data = files.read_bytes(path)
    except UserError:
        if files.modified_at(path) is None:  # removed between the look and the read
            return None
        raise
    try:
        return Owner.of(json.loads(data))
    except (ValueError, TypeError, AttributeError):
        return Owner.unnamed((modified + timedelta(seconds=expiry_s)).isoformat())


def _json(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
