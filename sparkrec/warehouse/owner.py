"""Who holds a lock, and whether that process still lives as far as it can be seen from here."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Owner:
    """Who holds a lock; ``started`` tells a process from a later one of the same number.

    Process numbers mean something within one boot of a machine and one namespace of processes alone: containers may
    have the host's name and numbers of their own. Both are empty where they cannot be known.
    """

    run_id: str
    host: str
    pid: int
    started: str
    expires_at: str  # ISO 8601, UTC
    boot: str = ""
    namespace: str = ""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Owner:
        """The owner that a lock file names, also one of an older or newer version.

        Raises:
            TypeError: The values are none of an owner.
            ValueError: The expiry is no time.
        """
        known = {field.name for field in fields(cls)}
        owner = cls(**{key: value for key, value in values.items() if key in known})
        if datetime.fromisoformat(owner.expires_at).tzinfo is None:
            raise ValueError(owner.expires_at)
        return owner

    @classmethod
    def unnamed(cls, expires_at: str) -> Owner:
        """That of a file which says nothing (yet)."""
        return cls("", "", 0, "", expires_at)

    @property
    def named(self) -> bool:
        """Whether the file said who it is."""
        return bool(self.run_id)

    def is_attempt(self, other: Owner) -> bool:
        """Whether both are the same attempt, whatever their expiry."""
        return (self.run_id, self.host, self.pid) == (other.run_id, other.host, other.pid)

    def has_expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return datetime.fromisoformat(self.expires_at) <= now

    def is_dead(self, now: datetime) -> bool:
        """Whether the owner has ended; where that cannot be seen, whether the lock has expired.

        A process that is seen to live keeps its lock although it has not renewed it: it may stand still.
        """
        here = _boot(), _namespace()
        lives = _lives(self.pid, self.started) if all(here) and (self.boot, self.namespace) == here else None
        return self.has_expired(now) if lives is None else not lives


def this_process(run_id: str, expires_at: str) -> Owner:
    """This process as an owner."""
    pid = os.getpid()
    return Owner(run_id, socket.gethostname(), pid, _started(pid), expires_at, _boot(), _namespace())


def _lives(pid: int, started: str) -> bool | None:
    """Whether the process that began then still runs; None where it may be hidden from this user."""
    now = _started(pid)
    if now:
        return now == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return None


def _started(pid: int) -> str:
    """When a process began (clock ticks since boot), empty where it is not to be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _boot() -> str:
    """The kernel's id of this boot, empty where it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """The namespace that this process's number is of, empty where ``/proc`` shows another one's processes."""
    try:
        return os.readlink("/proc/self/ns/pid") if os.readlink("/proc/self") == str(os.getpid()) else ""
    except OSError:
        return ""
