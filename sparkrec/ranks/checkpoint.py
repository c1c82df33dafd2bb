"""Models and checkpoints: safetensors for tensors, JSON for the rest, each replaced as a whole.

A model folder holds ``weights.safetensors`` and ``model.json``, which is written last. A training run keeps its
state after each epoch in ``checkpoint-<epoch>.safetensors``, one file that holds its own description, so that tensors
and description cannot disagree; the last two are kept.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.log import log_event, warn_event
from sparkrec.storage import files

if TYPE_CHECKING:
    import torch

    from sparkrec.ranks.comm import Comm

WEIGHTS, MODEL, CHECKPOINT = "weights.safetensors", "model.json", "checkpoint-"
MODEL_HASH = "weights_sha256"
_KEPT = 2
Tensors = dict[str, "torch.Tensor"]


def save_model(path: str, weights: Tensors, model: dict[str, Any]) -> None:
    """Writes a finished model: the weights, then ``model.json`` with their hash.

    Args:
        path: The model's folder.
        weights: Name → tensor.
        model: JSON-able: configuration, versions of the inputs, history, …
    """
    data = _pack(weights, {})
    files.write_bytes(files.join(path, WEIGHTS), data)
    files.write_json(files.join(path, MODEL), {**model, MODEL_HASH: hashlib.sha256(data).hexdigest()})


def read_model(path: str) -> dict[str, Any]:
    """The description alone, ``model.json``.

    Raises:
        UserError: There is no finished model, or the file is damaged.
    """
    where = files.join(path, MODEL)
    if not files.exists(where):
        raise UserError("no such model", where=path, fix="run the training stage")
    model: dict[str, Any] = files.read_json(where)
    return model


def load_model(path: str) -> tuple[Tensors, dict[str, Any]]:
    """The weights and the description of the model in folder ``path``.

    Raises:
        UserError: There is none, or its files are damaged or do not belong together.
    """
    model = read_model(path)
    where = files.join(path, WEIGHTS)
    data = files.read_bytes(where)
    if hashlib.sha256(data).hexdigest() != model.get(MODEL_HASH):
        raise UserError("model is damaged: weights and model.json differ", where=where, fix="train the model again")
    return _unpack(data, where)[0], model


def save_checkpoint(path: str, epoch: int, tensors: Tensors, state: dict[str, Any], key: str) -> None:
    """Writes the state after ``epoch`` (from 1) and removes all but the last two.

    Args:
        path: The model's folder.
        epoch: Epochs done.
        tensors: Weights, optimizer state, states of random generators.
        state: JSON-able rest.
        key: Hash of all that decides on the training; a checkpoint of another key is never resumed.
    """
    described = {"epoch": epoch, "key": key, "state": state}
    files.write_bytes(files.join(path, _name(epoch)), _pack(tensors, described))
    for old in _epochs(path):
        if old <= epoch - _KEPT:
            files.remove(files.join(path, _name(old)))


def load_checkpoint(path: str, key: str) -> tuple[int, Tensors, dict[str, Any]] | None:
    """The newest checkpoint of this key that can be read: (epochs done, tensors, state); None without one.

    A damaged checkpoint, or one of another configuration or other inputs, is passed over with a log line.
    """
    for epoch in sorted(_epochs(path), reverse=True):
        where = files.join(path, _name(epoch))
        try:
            tensors, described = _unpack(files.read_bytes(where), where)
        except UserError as error:
            warn_event("checkpoint_damaged", where=where, reason=str(error))
            continue
        if described.get("key") != key or described.get("epoch") != epoch:
            log_event("checkpoint_ignored", where=where, reason="another configuration or other inputs")
            continue
        log_event("checkpoint_resumed", where=where, epoch=epoch)
        return epoch, tensors, described["state"]
    return None


def resume(comm: Comm, path: str, key: str, tensors: Tensors) -> list[dict[str, Any]]:
    """Takes the newest checkpoint of this key over; rank 0 reads, and hands on what all ranks go on from.

    Args:
        comm: The ranks.
        path: The model's folder.
        key: As :func:`load_checkpoint` has it.
        tensors: The state; its values become the checkpoint's, where there is one.

    Returns:
        What is known of each epoch done, from the checkpoint's state ``history``; on other ranks its number alone.
    """
    import torch

    found = load_checkpoint(path, key) if comm.rank == 0 else None
    if found is not None:
        for name, tensor in tensors.items():
            tensor.copy_(found[1][name])
    done = int(comm.broadcast(torch.tensor([found[0] if found else 0]))[0])
    if done and comm.size > 1:
        for tensor in tensors.values():
            if tensor.numel():
                tensor.copy_(comm.broadcast(tensor))
    return list(found[2]["history"]) if found else [{"epoch": epoch} for epoch in range(1, done + 1)]


def remove_checkpoints(path: str) -> None:
    """Removes the checkpoints of a finished run."""
    for epoch in _epochs(path):
        files.remove(files.join(path, _name(epoch)))


def _name(epoch: int) -> str:
    return f"{CHECKPOINT}{epoch:05d}.safetensors"


def _epochs(path: str) -> list[int]:
    """Epochs of the checkpoints in the folder, ascending; unfinished temporary files do not count."""
    names = [n for n in files.list_names(path) if n.startswith(CHECKPOINT) and n.endswith(".safetensors")]
    numbers = [n[len(CHECKPOINT) : -len(".safetensors")] for n in names]
    return sorted(int(n) for n in numbers if n.isdigit())


def _pack(tensors: Tensors, described: dict[str, Any]) -> bytes:
    """Safetensors bytes; the description and a hash of the tensors' bytes are in the header."""
    from safetensors.torch import save

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    digest = hashlib.sha256()
    for name in sorted(plain):
        digest.update(plain[name].numpy().tobytes())
    return save(plain, metadata={"sparkrec": json.dumps(described), "sha256": digest.hexdigest()})


def _unpack(data: bytes, where: str) -> tuple[Tensors, dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    damaged = UserError("file is damaged", where=where, fix="remove it and train again")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        described = json.loads(header["sparkrec"])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise damaged from error
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    if digest.hexdigest() != header["sha256"]:
        raise damaged
    return tensors, described
