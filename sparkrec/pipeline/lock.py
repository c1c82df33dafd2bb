"""One night at a time on a warehouse: a lock file with an owner and an expiry."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sparkrec import files
from sparkrec.errors import InvariantError, UserError
from sparkrec.log import warn_event

LOCK = "_lock.json"


@dataclass(frozen=True)
class Owner:
    """Who holds the lock; ``started`` tells a process from a later one of the same number."""

    run_id: str
    host: str
    pid: int
    started: str
    expires_at: str  # ISO 8601, UTC

    def is_dead(self, now: datetime) -> bool:
        """Whether the lock has expired, or its owner was a process of this machine that has ended."""
        if datetime.fromisoformat(self.expires_at) <= now:
            return True
        return self.host == socket.gethostname() and self.started != _started(self.pid)


@contextmanager
def locked(warehouse: str, run_id: str, expiry_s: float) -> Iterator[None]:
    """Holds the warehouse's lock, renewing it every third of its expiry.

    A local folder's lock is made atomically. On other file systems two nights that begin within the same moment can
    both get it, as far as the file system does not refuse to create a file twice.

    Args:
        warehouse: Its folder.
        run_id: The attempt, named to whoever is refused.
        expiry_s: Seconds after which a lock that nobody renews is taken over.

    Raises:
        UserError: Another night holds it.
        InvariantError: It was lost meanwhile: this process stood still for longer than the expiry.
    """
    path = files.join(warehouse, LOCK)
    me = Owner(run_id, socket.gethostname(), os.getpid(), _started(os.getpid()), _in(expiry_s))
    _take(path, me)
    stop, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not stop.wait(expiry_s / 3):
            if not _is_mine(path, me):
                lost.set()
                return
            try:
                files.write_bytes(path, _json(replace(me, expires_at=_in(expiry_s))))
            except UserError as error:  # it may be written again before it expires
                warn_event("lock_not_renewed", reason=str(error))

    thread = threading.Thread(target=renew, name="warehouse-lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        try:
            if _is_mine(path, me):
                files.remove(path)
        except OSError as error:  # storage that has failed; whoever comes next sees that this process has ended
            warn_event("lock_not_given_back", reason=str(error))
    if lost.is_set():
        raise InvariantError(
            f"the lock of {warehouse} was lost while {run_id} ran: another night may have run beside it"
        )


def _take(path: str, me: Owner) -> None:
    for _ in range(3):  # another night may take over the same dead lock first
        if files.create(path, _json(me)):
            return
        holder = _read(path)
        if holder is None:
            continue
        if not holder.is_dead(datetime.now(UTC)):
            raise UserError(
                "another night is running on this warehouse",
                where=f"{holder.run_id}, process {holder.pid} on {holder.host}",
                fix=f"wait for it; if it is dead, its lock {path} expires at {holder.expires_at}",
            )
        aside = f"{path}.{uuid.uuid4().hex}"
        if files.move(path, aside):
            moved = _read(aside)
            if moved == holder:
                warn_event("lock_taken_over", run_id=holder.run_id, host=holder.host, pid=holder.pid)
            elif moved is not None:  # another night took over in between: the lock is its own
                files.create(path, _json(moved))
            files.remove(aside)
    raise UserError("another night has just begun on this warehouse", where=path, fix="wait for it")


def _is_mine(path: str, me: Owner) -> bool:
    holder = _read(path)
    return holder is not None and (holder.run_id, holder.host, holder.pid) == (me.run_id, me.host, me.pid)


def _read(path: str) -> Owner | None:
    """The owner; None where the file is gone.

    Raises:
        UserError: It is no lock.
    """
    if not files.exists(path):
        return None
    try:
        data = files.read_bytes(path)
    except UserError:  # removed between the look and the read
        return None
    try:
        return Owner(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise UserError(
            "the warehouse's lock is damaged", where=path, fix="remove it if no night is running"
        ) from error


def _json(owner: Owner) -> bytes:
    return json.dumps(asdict(owner)).encode()


def _in(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def _started(pid: int) -> str:
    """When a process of this machine began (clock ticks since boot), empty where it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
