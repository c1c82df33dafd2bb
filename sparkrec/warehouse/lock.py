"""One night at a time on a warehouse: a lock file with an owner and an expiry, and a fence before each write."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

from sparkrec.errors import UserError
from sparkrec.log import warn_event
from sparkrec.storage import files
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
        elif not files.replace(self._path, _json(self._me), _json(new)):
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

    def _is_mine(self) -> bool:
        """Whether the lock names this attempt; one that is on its way from one name to another is waited for."""
        for look in range(_LOOKS):
            found = _read(self._path, self._expiry_s)
            if found is not None and found[0].named:
                return found[0].is_attempt(self._me)
            time.sleep(_BETWEEN_S if look < _LOOKS - 1 else 0)
        return False


@contextmanager
def locked(warehouse: str, run_id: str, expiry_s: float) -> Iterator[Lock]:
    """Holds the warehouse's lock, renewing it every third of its expiry.

    The file is made by ``files.create``, which no two can do at once on any storage.

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

    ``files.create`` makes a lock where there is none, ``files.replace`` makes that of a dead owner another's; no two
    can do either at once. An owner that was taken for dead and lives sees it before its next write (``Lock.check``).
    """
    for _ in range(_LOOKS):  # another night may take over the same dead lock first
        if files.create(path, _json(me)):
            return
        found = _read(path, expiry_s)
        if found is None:
            continue
        if not found[0].named and not found[0].has_expired(datetime.now(UTC)):  # it is being written
            time.sleep(_BETWEEN_S)
            found = _read(path, expiry_s) or found
        holder, data = found
        if not holder.is_dead(datetime.now(UTC)):
            raise _refused(path, holder)
        if files.replace(path, data, _json(me)):
            warn_event("lock_taken_over", run_id=holder.run_id, host=holder.host, pid=holder.pid)
            return
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


def _read(path: str, expiry_s: float) -> tuple[Owner, bytes] | None:
    """The owner, and the file's content; None where it is gone. Of one that says nothing yet only the age is known.

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
        return Owner.of(json.loads(data)), data
    except (ValueError, TypeError, AttributeError):
        return Owner.unnamed((modified + timedelta(seconds=expiry_s)).isoformat()), data


def _json(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
