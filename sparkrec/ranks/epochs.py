"""The epochs of a training: each is kept as a checkpoint, and the last one's weights become the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparkrec.log import log_event
from sparkrec.ranks.checkpoint import Tensors, remove_checkpoints, save_checkpoint

if TYPE_CHECKING:
    from sparkrec.ranks.comm import Comm

History = list[dict[str, Any]]


def run_epochs(
    comm: Comm,
    path: str,
    key: str,
    history: History,
    epochs: int,
    *,
    run_epoch: Callable[[int], dict[str, Any]],
    tensors: Callable[[], Tensors],
    save: Callable[[History], None],
    name: str,
) -> History:
    """Goes through the epochs that are left and writes the model; every rank calls it.

    Rank 0 alone writes: a log line and a checkpoint after each epoch, then the model, whose checkpoints it removes. No
    rank returns before that.

    Args:
        comm: The ranks.
        path: The model's folder.
        key: Of the checkpoints, as ``checkpoint.save_checkpoint`` has it.
        history: Of the epochs done, as ``checkpoint.resume`` gives it.
        epochs: How many there are in all.
        run_epoch: Makes the epoch of a number (from 1); returns what is known of it, JSON-able.
        tensors: All state by name, as it is when it is called.
        save: Writes the finished model, given the history of all epochs.
        name: Of the model, for the log.

    Returns:
        The history of all epochs.
    """
    history = list(history)
    for epoch in range(len(history) + 1, epochs + 1):
        history.append(run_epoch(epoch))
        if comm.rank == 0:
            log_event(f"{name}_epoch", **history[-1], ranks=comm.size)
            save_checkpoint(path, epoch, tensors(), {"history": history}, key)
    if comm.rank == 0:
        save(history)
        remove_checkpoints(path)
    comm.barrier()
    return history
