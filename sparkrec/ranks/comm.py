"""Communication between training ranks: one process, or Horovod workers, behind one small interface.

The loops sum gradients themselves, so that N ranks at the same global batch take the same steps as one.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Protocol

from sparkrec.errors import InvariantError
from sparkrec.ranks import shared_memory
from sparkrec.ranks.shared_memory import SharedMemory

if TYPE_CHECKING:
    import torch


class Comm(Protocol):
    """What a training loop may ask of the other ranks. Every rank must make the same calls in the same order."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    memory: SharedMemory | None  # of all ranks, where they are on one machine

    def allreduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over the ranks, as a new tensor of the same shape and dtype; no autograd."""

    def allgather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The ranks' tensors of equal shape ``[n, …]``, concatenated in rank order to ``[size * n, …]``; no autograd.

        Raises:
            InvariantError: The first dimensions differ between ranks.
        """

    def broadcast(self, tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
        """The tensor of rank ``root``, as a new tensor; no autograd."""

    def barrier(self) -> None:
        """Waits for all ranks."""


_EXACT_UP_TO = 16_384  # numbers


class SingleProcess:
    """One rank: every operation is the identity."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    memory = None

    def allreduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself, detached."""
        return tensor.detach()

    def allgather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself, detached."""
        return tensor.detach()

    def broadcast(self, tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
        """The tensor itself, detached."""
        return tensor.detach()

    def barrier(self) -> None:
        """Nothing to wait for."""


class HorovodComm:
    """The ranks of an initialised ``horovod.torch`` (``hvd.init()`` is the launcher's).

    Where all of them are on one machine, tensors of its memory are exchanged there (``ranks.shared_memory``).

    Args:
        shared: False: all messages go through Horovod.
        timeout_s: How long to wait for another rank of this machine to come; see ``SharedMemory``.
    """

    def __init__(self, shared: bool = True, timeout_s: float = 60.0) -> None:
        import horovod.torch as hvd

        self._hvd = hvd
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.local_size: int = hvd.local_size()
        self.memory = self._share(timeout_s) if shared else None

    def _share(self, timeout_s: float) -> SharedMemory | None:
        """Memory that all ranks see; None where they are not on one machine, or one of them cannot open it."""
        import torch

        if self.size == 1 or self.local_size != self.size:
            return None
        path = (shared_memory.make_file(self.size) if shared_memory.usable() else None) if self.rank == 0 else None
        path = str(self._hvd.broadcast_object(path or "", root_rank=0, name="shared_memory"))
        memory = None
        if path:
            with contextlib.suppress(OSError, InvariantError):
                memory = SharedMemory(path, self.rank, self.size, timeout_s)
        opened = self._hvd.allreduce(torch.tensor([int(memory is not None)]), op=self._hvd.Sum, name="shared_memory")
        if path and self.rank == 0:
            os.unlink(path)
        return memory if int(opened[0]) == self.size else None

    def close(self) -> None:
        """Tells the other ranks that this one takes part no more."""
        if self.memory:
            self.memory.leave()

    def allreduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """See ``Comm``; Horovod's default would be the mean.

        Messages travel under few names and lengths (filled up with zeros), so that the ranks agree on them by
        Horovod's response cache instead of asking rank 0 anew at every step.
        """
        import torch

        if self.memory and not tensor.is_cuda:
            return self.memory.sum(tensor)
        flat = tensor.detach().reshape(-1)
        length = _rounded(flat.numel())
        message = torch.nn.functional.pad(flat, (0, length - flat.numel())) if length > flat.numel() else flat.clone()
        self._hvd.allreduce_(message, op=self._hvd.Sum, name=f"sum.{message.dtype}.{length}")
        return message[: flat.numel()].view(tensor.shape)

    def allgather(self, tensor: torch.Tensor) -> torch.Tensor:
        """See ``Comm``.

        Messages of one kind have one name, for Horovod's response cache. The number of rows is no part of it, so that
        ranks which disagree on it meet, and see it.
        """
        if self.memory and not tensor.is_cuda:
            return self.memory.gather(tensor)
        mine = tensor.detach().contiguous()
        gathered = self._hvd.allgather(mine, name=f"gather.{mine.dtype}.{list(mine.shape[1:])}")
        # Where shapes differ, at least one rank has another size than the mean: it raises, which ends the job.
        if gathered.shape[0] != self.size * tensor.shape[0]:
            raise InvariantError(f"allgather of unequal shapes: {tuple(tensor.shape)} here, {gathered.shape[0]} in all")
        return gathered

    def broadcast(self, tensor: torch.Tensor, root: int = 0) -> torch.Tensor:
        """See ``Comm``."""
        return self._hvd.broadcast(tensor.detach(), root_rank=root)

    def barrier(self) -> None:
        """See ``Comm``."""
        self._hvd.barrier()


def _rounded(n: int) -> int:
    """The length that a message of n numbers is filled up to: at most a few percent more where it matters."""
    return n if n <= _EXACT_UP_TO else -(-n // _EXACT_UP_TO) * _EXACT_UP_TO


def gather_rows(tensor: torch.Tensor, comm: Comm) -> torch.Tensor:
    """Rows of all ranks ``[size * n, …]``, differentiable.

    Its backward pass gives each rank the gradient of the loss *summed over ranks* with respect to its own rows
    (Horovod's own allgather gives it divided by the number of ranks under its optimizer). Every rank must run the
    backward pass.

    Args:
        tensor: ``[n, …]``, of equal shape on all ranks.
        comm: The ranks.
    """
    import torch

    class GatherRows(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
            return comm.allgather(rows).clone() if comm.size == 1 else comm.allgather(rows)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            n = grads[0].shape[0] // comm.size
            mine = slice(comm.rank * n, (comm.rank + 1) * n)
            if comm.memory and not grads[0].is_cuda:
                return comm.memory.sum_parts([grads[0]], [mine])[0]
            return comm.allreduce_sum(grads[0].contiguous())[mine]

    return GatherRows.apply(tensor)  # type: ignore[no-any-return,no-untyped-call]


def touched_rows(comm: Comm, rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of a table that a step touches on any rank, ascending: int64, the same on all ranks.

    Args:
        comm: The ranks.
        rows: int64 ``[n, m]`` of this rank's n examples; -1 for none.
        width: The largest n of the ranks.
    """
    import torch

    if comm.size > 1:
        rows = comm.allgather(torch.nn.functional.pad(rows, (0, 0, 0, width - len(rows)), value=-1))
    touched = rows.unique()
    return touched[touched >= 0]
