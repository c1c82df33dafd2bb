"""Sums and concatenations over the ranks of one machine, through memory that they share instead of its network.

A step of a small model takes few milliseconds, of which a message of a megabyte through the loopback device takes
most. Here each rank writes its part into a slot of its own, waits until all have, and reads the others'. There are two
sets of slots, used in turns: a rank that writes the next but one message has seen all ranks at the next one, so none
still reads what it overwrites. Sums are taken in the order of the ranks, so all have the same bits.

Why nothing is read too early or overwritten too soon: a rank counts its turns, and writes the number of its turn
(``finish``, ``arrive``) after what belongs to it; other processors see these writes in that order (``usable``). It goes
on when no rank's number is below its own (``_wait``), so all that belongs to the turn is there. In turn t + 1 it writes
to the other set, which was read in turn t - 1: all ranks had left that turn before they wrote the number t, which it
has seen. ``arrive`` is a turn without a message, for what ranks change together (``share``): its wait is put off to the
next call of anything (``settle``), by which it has mostly come to pass.

The file behind the memory has no name any more once all ranks have opened it: nothing is left when they are killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.errors import InvariantError

if TYPE_CHECKING:
    import torch

FOLDER = "/dev/shm"
SLOT_BYTES = 2 << 20  # a longer message goes in parts
LINE = 8  # int64 of a cache line, so that ranks do not write into each other's
ARRIVED, PID, BORN, LEFT, LENGTH = 0, 1, 2, 3, 4  # of a rank's line; LENGTH has a place for each of the two sets
SPINS = 20  # looks before the core is given to others: two ranks can be two threads of one core
LOOK_EVERY = 500  # waits between looks for ranks that have ended
WAIT_S = 20e-6
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


class RankLostError(RuntimeError):
    """Another rank ended, or never came."""


def usable() -> bool:
    """Whether this machine has memory to share, and other processors see writes in the order they were made in."""
    return platform.machine() in ("x86_64", "AMD64") and os.path.isdir(FOLDER) and os.path.isdir("/proc/self")


def file_size(size: int, slot_bytes: int = SLOT_BYTES) -> int:
    """Bytes of the file that so many ranks share."""
    return size * LINE * 8 + 2 * size * slot_bytes


def make_file(size: int, slot_bytes: int = SLOT_BYTES) -> str | None:
    """Makes the file, which only this user can open; None where there is no room."""
    return _new_file(file_size(size, slot_bytes))


def _new_file(n_bytes: int) -> str | None:
    """A file of so many zeros in memory, with room for all of them; None where there is not."""
    handle, path = tempfile.mkstemp(prefix="sparkrec-ranks-", dir=FOLDER)
    try:
        os.posix_fallocate(handle, 0, n_bytes)
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(handle)
    return path


def _wake_in_time() -> None:
    """Has this thread's sleeps end within a microsecond of their time, not within Linux's usual 50."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1000, 0, 0, 0)


def _of_bytes(sent: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """The bytes of a message as a tensor of the dtype and shape of another."""
    import torch

    return torch.from_numpy(sent.view(_numpy_type(like))).view(like.shape)


def _numpy_type(tensor: torch.Tensor) -> np.dtype:
    return tensor[:0].numpy().dtype if tensor.dim() else tensor.numpy().dtype


def sum_in_order(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of the ranks' tensors, as a new one: in the order of the ranks, so that all have the same bits."""
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
    for more in parts[2:]:
        total.add_(more)
    return total


class SharedMemory:
    """A rank's side of it. All ranks make the same calls in the same order."""

    def __init__(self, path: str, rank: int, size: int, timeout_s: float = 60.0, slot_bytes: int = SLOT_BYTES) -> None:
        """Opens the file of ``make_file``.

        Args:
            path: The file; it can be removed when all ranks have opened it.
            rank: This one, from 0.
            size: How many there are.
            timeout_s: How long to wait for another rank to open the file. One that has is waited for as long as its
                process runs, whatever it does meanwhile: rank 0 may write a checkpoint of many gigabytes.
            slot_bytes: As given to ``make_file``.

        Raises:
            OSError: There is no such file, or it is another user's.
            InvariantError: It has another size.
        """
        self.rank, self.size, self.timeout_s, self.slot_bytes = rank, size, timeout_s, slot_bytes
        handle = os.open(path, os.O_RDWR)
        try:
            if os.fstat(handle).st_size != file_size(size, slot_bytes):
                raise InvariantError(f"the memory of {size} ranks has {os.fstat(handle).st_size} bytes")
            self._memory = mmap.mmap(handle, file_size(size, slot_bytes))
        finally:
            os.close(handle)
        head = size * LINE * 8
        self._lines = np.frombuffer(self._memory, np.int64, size * LINE).reshape(size, LINE)
        self.slots = np.frombuffer(self._memory, np.uint8, offset=head).reshape(2, size, slot_bytes)
        self._turn, self._settled = 0, True
        self._lines[rank, BORN] = _born(os.getpid()) or 0
        self._lines[rank, PID] = os.getpid()  # last: whoever sees it sees when it was born, too
        _wake_in_time()

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over the ranks of CPU tensors of one shape and dtype, as a new tensor.

        Raises:
            InvariantError: The ranks' tensors have different sizes.
            RankLostError: Another rank ended.
        """
        return self._sum_rows(tensor.reshape(-1), slice(None)).view(tensor.shape)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' CPU tensors ``[n, …]`` of one shape and dtype as ``[size * n, …]``; raises as ``sum`` does."""
        flat = tensor.detach().reshape(-1)
        result = flat.new_empty(self.size, flat.numel())
        at_once = self.slot_bytes // flat.element_size()
        for low in range(0, max(1, flat.numel()), at_once):
            for row, part in zip(result, self._parts(flat[low : low + at_once]), strict=True):
                row[low : low + at_once] = part
        return result.view(self.size * tensor.shape[0], *tensor.shape[1:])

    def sum_parts(self, parts: Sequence[torch.Tensor], own: Sequence[slice]) -> list[torch.Tensor]:
        """Of each of several CPU tensors of one dtype, some of its rows summed over the ranks, as new tensors.

        Args:
            parts: ``[n, …]``, of the same shapes on all ranks.
            own: The rows that this rank wants, whatever the others do.

        Raises:
            InvariantError: The ranks' tensors have different sizes.
            RankLostError: Another rank ended.
        """
        n_bytes = [part.numel() * part.element_size() for part in parts]
        if sum(n_bytes) > self.slot_bytes:
            return [self._sum_rows(part, rows) for part, rows in zip(parts, own, strict=True)]
        sent = self._exchange([part.detach().reshape(-1).numpy() for part in parts])
        results, begin = [], 0
        for part, rows, n in zip(parts, own, n_bytes, strict=True):
            theirs = [_of_bytes(one[begin : begin + n], part)[rows] for one in sent]
            results.append(sum_in_order(theirs))
            begin += n
        return results

    def _sum_rows(self, part: torch.Tensor, own: slice) -> torch.Tensor:
        """``sum_parts`` of one tensor, in messages of as many rows as a slot holds."""
        at_once = self.slot_bytes // max(1, part[:1].numel() * part.element_size()) if part.dim() else 0
        if not at_once:
            return self.sum(part)[own]
        first, end, _ = own.indices(len(part))
        result = part.new_empty(max(0, end - first), *part.shape[1:])
        for low in range(0, max(1, len(part)), at_once):  # an empty one is sent, too: all must have the same
            rows = part.detach()[low : low + at_once]
            sent = self._exchange([rows.reshape(-1).numpy()])
            begin, stop = max(low, first), min(low + len(rows), end)
            if begin >= stop:
                continue
            theirs = [_of_bytes(one, rows)[begin - low : stop - low] for one in sent]
            out = result[begin - first : stop - first]
            out.copy_(theirs[0])
            for more in theirs[1:]:
                out.add_(more)
        return result

    def part_of(self, n: int) -> slice:
        """This rank's part of n rows: together, in order, the ranks' are all."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def share(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Rank 0's CPU tensor in memory that all ranks read and write; None for all where there is no room for it."""
        import torch

        name = np.zeros(256, np.uint8)
        n_bytes = tensor.numel() * tensor.element_size()
        path = _new_file(n_bytes) if self.rank == 0 and n_bytes else None
        if path:
            name[: len(path)] = np.frombuffer(path.encode(), np.uint8)
        path = self.gather(torch.from_numpy(name[None]))[0].numpy().tobytes().rstrip(b"\0").decode()
        memory = None
        if path:
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDWR)
                try:
                    memory = mmap.mmap(handle, n_bytes)
                finally:
                    os.close(handle)
        everywhere = int(self.sum(torch.tensor([int(memory is not None)]))[0]) == self.size
        if path and self.rank == 0:
            os.unlink(path)
        if memory is None or not everywhere:
            return None
        shared = torch.from_numpy(np.frombuffer(memory, _numpy_type(tensor))).view(tensor.shape)
        if self.rank == 0:
            shared.copy_(tensor)
        self.arrive()
        self.settle()
        return shared

    def arrive(self) -> None:
        """Tells the others that this rank has come to this place; the next call of anything waits for them."""
        self.settle()
        self._turn += 1
        self._lines[self.rank, LENGTH + self._turn % 2] = 0
        self._lines[self.rank, ARRIVED] = self._turn
        self._settled = False

    def settle(self) -> None:
        """Waits for all ranks to come to where this one has last arrived; raises ``RankLostError``."""
        if not self._settled:
            self._wait()
            self._settled = True

    def leave(self) -> None:
        """Tells the others that no message comes from here any more."""
        self._lines[self.rank, LEFT] = 1

    def _parts(self, flat: torch.Tensor) -> list[torch.Tensor]:
        """The ranks' vectors, as views that hold until the message after the next one."""
        import torch

        mine = flat.numpy()
        return [torch.from_numpy(one.view(mine.dtype)) for one in self._exchange([mine])]

    def _exchange(self, mine: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The bytes of all ranks' parts, as views that hold until the message after the next one."""
        half, end = self.begin(), 0
        for part in mine:
            slot = self.slots[half, self.rank, end : end + part.nbytes]
            slot.view(part.dtype)[:] = part
            end += part.nbytes
        self.finish(half, end)
        return [self.slots[half, rank, :end] for rank in range(self.size)]

    def begin(self) -> int:
        """The set of slots for the next message, which nobody reads any more."""
        self.settle()
        self._turn += 1
        return self._turn % 2

    def finish(self, half: int, length: int, meanwhile: Callable[[], None] | None = None) -> None:
        """Tells the others that this rank's part is written, and waits for theirs, which must be as long."""
        self._lines[self.rank, LENGTH + half] = length
        self._lines[self.rank, ARRIVED] = self._turn
        if meanwhile:
            meanwhile()
        self._wait()
        lengths = self._lines[:, LENGTH + half]
        if (lengths != length).any():
            raise InvariantError(f"ranks send tensors of unequal shapes: {lengths.tolist()} bytes")

    def _wait(self) -> None:
        """Until all ranks have written this message."""
        arrived, looks, until = self._lines[:, ARRIVED], 0, 0.0
        while int(arrived.min()) < self._turn:
            looks += 1
            if looks > SPINS:
                until = until or time.monotonic() + self.timeout_s
                time.sleep(WAIT_S)
                if looks % LOOK_EVERY == 0:
                    self._check_others(until)

    def _check_others(self, until: float) -> None:
        """Raises where a rank has ended or, after this time, has not even opened the file."""
        for rank in range(self.size):
            pid, born = int(self._lines[rank, PID]), int(self._lines[rank, BORN])  # 0: it has not opened the file yet
            ended = bool(self._lines[rank, LEFT]) or bool(pid and _born(pid) != born)
            if self._lines[rank, ARRIVED] >= self._turn:  # looked at last: it may have written, and ended, just now
                continue
            if ended:
                raise RankLostError(f"rank {rank} has ended")
            if not pid and time.monotonic() > until:
                raise RankLostError(f"rank {rank} did not come within {self.timeout_s:g} s")


def _born(pid: int) -> int | None:
    """When a process of this machine began, in ticks since the machine did; None for one that does not run.

    One that nobody has waited for yet does not run. The time tells a process from a later one of the same number.
    """
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in ("Z", "X") else int(fields[18])
    return None
