"""The plain GRU's training step on the CPU as three compiled loops: what ``step`` does, without its operations.

A step of a small model starts some two hundred operations of a few microseconds each, and each rank starts all of them
however few its lanes are. Here numbers stay in arrays that are made once. Ranks that share memory write what the
others need where it is computed: scores, their gradients and those of the layers lie in the rank's slot of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from sparkrec.models.gru import compiled
from sparkrec.models.gru.compiled.items import Numbered
from sparkrec.models.gru.compiled.step import Room, message_parts, row_stride
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import Network
from sparkrec.models.gru.step import GruState, Trainer
from sparkrec.ranks.comm import Comm


class FusedSteps:
    """The steps of one epoch: updates the state and this rank's hidden states, which begin with zeros."""

    def __init__(self, trainer: Trainer, state: GruState, places: torch.Tensor, n_lanes: int) -> None:
        """Makes all arrays that the steps need.

        Args:
            trainer: Of a network, a state and ranks that are ``fusible``.
            state: The weights, changed in place.
            places: int64, this rank's lanes among all.
            n_lanes: The number of all.
        """
        compiled.blas.provide()
        network, n_sample, here = trainer.network, trainer.config.n_sample, len(places)
        self._trainer, self._memory, self._places = trainer, state.memory, places.numpy()
        (self._table, self._bias), self._flat = (t.numpy() for t in state.rows), state.flat.numpy()
        self._widths = np.array([network.dim, *network.state_widths], np.int64)
        self._rates = [mask.rate for mask in network.masks]
        self._masked = np.array([rate > 0 for rate in self._rates])
        self._room = Room.of(self._widths, 2 * n_lanes + n_sample, here)
        self._batches = [Numbered.room(n_lanes, n_sample, here) for _ in range(2)]
        self._seen = np.full(network.n_items, -1, np.int32)  # notes the items of a step
        self._hidden = np.zeros(here * sum(network.state_widths), np.float32)
        if self._memory is None:
            self._messages = [(np.zeros(message_length(network, here, n_lanes, n_sample), np.float32),)] * 2
        else:
            self._messages = [tuple(slots.view(np.float32)) for slots in self._memory.slots]
        self._rank = 0 if self._memory is None else self._memory.rank

    def run(self, chunk: Chunk, samples: torch.Tensor, drops: torch.Generator) -> Iterator[float]:
        """Goes through the steps of a chunk.

        Args:
            chunk: Steps of all lanes.
            samples: int64 [K, S], the additional negatives of each step.
            drops: Common generator of the dropout masks.

        Yields:
            Of each step the loss summed over the lanes of all ranks.
        """
        arrays = [t.numpy() for t in (chunk.input, chunk.target, chunk.start, samples)]
        keys = self._keys(len(chunk.target), drops)

        def number(k: int) -> None:
            given = (part[k] for part in arrays)
            compiled.items.number_step(*given, self._places, self._seen, self._batches[k % 2])

        number(0)
        for k, of_step in enumerate(keys):
            following = partial(number, k + 1) if k + 1 < len(keys) else None
            yield self._step(self._batches[k % 2], of_step, chunk.target.shape[1], following)

    def _keys(self, n_steps: int, drops: torch.Generator) -> np.ndarray:
        """uint64 [K, masks], the keys of the steps' dropout masks, as ``Trainer`` draws them one by one."""
        drawn = torch.empty(n_steps, int(self._masked.sum()), dtype=torch.int64).random_(generator=drops)
        keys = np.zeros((n_steps, len(self._masked)), np.uint64)
        keys[:, self._masked] = drawn.numpy().view(np.uint64)
        return keys

    def _step(self, batch: Numbered, keys: np.ndarray, n_lanes: int, following: partial[None] | None) -> float:
        memory, room, (n_candidates, n_rows, b) = self._memory, self._room, batch.sizes.tolist()
        self._draw_masks(batch, b, keys)
        half = 0 if memory is None else memory.begin()  # waits until all have updated the weights
        messages = self._messages[half]
        mine = messages[self._rank]
        given = (self._widths, batch)
        weights = self._flat[0]
        compiled.step.forward(self._table, self._bias, weights, *given, self._hidden, self._masked, room, mine)
        loss = self._loss(batch, mine)
        compiled.step.backward(weights, *given, self._masked, room, mine, loss)
        rows, flat = (0, n_rows), (0, len(weights))
        if memory is not None:
            memory.finish(half, n_candidates << 32 | n_rows, following)
            rows, flat = ((part.start, part.stop) for part in (memory.part_of(n_rows), memory.part_of(len(weights))))
        elif following:
            following()
        # The mean is over all lanes, at an epoch's end too, when some have no event: so each event weighs the same.
        numbers = self._trainer.optimizer.numbers(1.0 / n_lanes)
        parts = (*rows, *flat)
        total = compiled.step.update(self._table, self._bias, self._flat, *given, messages, *parts, room, *numbers)
        if memory is not None:
            memory.arrive()
        return float(total)

    def _draw_masks(self, batch: Numbered, b: int, keys: np.ndarray) -> None:
        end, here = 0, len(self._places)
        for key, rate, width in zip(keys, self._rates, self._widths, strict=True):
            if rate > 0:
                mask = self._room.masks[end : end + b * width].reshape(b, width)
                compiled.items.dropout(batch.lanes[:b], key, 1 - rate, np.float32(1 / (1 - rate)), mask)
            end += here * width

    def _loss(self, batch: Numbered, message: np.ndarray) -> float:
        """The loss of this rank's lanes; the scores in the message become their gradients."""
        n_candidates, _, b = batch.sizes.tolist()
        begin = message_parts(b, n_candidates, int(self._widths[0]), self._room.items.shape[1])[3]
        scores = message[begin : begin + b * n_candidates].reshape(b, n_candidates)
        candidates = [torch.from_numpy(part[:n_candidates]) for part in (batch.rows, batch.n_target, batch.n_sampled)]
        given = torch.from_numpy(scores)
        loss, grad = self._trainer.loss(given, torch.from_numpy(batch.target[:b]), *candidates)
        if grad.data_ptr() != given.data_ptr():
            given.copy_(grad)
        return float(loss)


def message_length(network: Network, here: int, n_lanes: int, n_sample: int) -> int:
    """The float32 of a message of a rank with so many of the lanes, at most."""
    parts = message_parts(here, n_lanes + n_sample, network.dim, row_stride(network.dim))
    return parts[4] + network.flat_size  # type: ignore[no-any-return]


def load(trainer: Trainer, device: torch.device, comm: Comm) -> None:
    """Has the loops of a training ready before it begins."""
    if device.type != "cpu":
        return
    compiled.load(trainer.config.loss)
    if _in_whole_steps(trainer):
        compiled.load_whole_steps(comm.size)


def fusible(trainer: Trainer, state: GruState, n_lanes: int, comm: Comm) -> bool:
    """Whether ``FusedSteps`` can make the steps; the same on all ranks.

    It can on the CPU, where cells are GRUs, inputs and outputs are one table, gradients go back over one step, and
    there are no other ranks, or such that share memory and find room in it for a message of all lanes.
    """
    if state.flat.device.type != "cpu" or not _in_whole_steps(trainer):
        return False
    if state.memory is None:
        return comm.size == 1
    return 4 * message_length(trainer.network, n_lanes, n_lanes, trainer.config.n_sample) <= state.memory.slot_bytes


def _in_whole_steps(trainer: Trainer) -> bool:
    network = trainer.network
    plain = isinstance(network, GruNetwork) and network.cell == "gru" and network.embedding == "constrained"
    return plain and network.bptt == 1  # type: ignore[attr-defined]
