"""One training step of any session-parallel network by operations, on any device, the same on one rank and on many.

Independent of the number of ranks by construction: lanes belong to files, negatives and dropout masks come from a
common seed, and the candidates of a step are the targets of all ranks' lanes and the additional negatives. So the rows
that a step touches are the same set on every rank, and their gradients travel as one dense message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparkrec.models.gru import compiled, losses
from sparkrec.models.gru.gradient_sums import summed
from sparkrec.models.gru.lanes import NO_TARGET, Chunk
from sparkrec.models.gru.optimizer import AdagradMomentum
from sparkrec.models.gru.protocol import NO_START, Batch, Network, Parameters, Touched
from sparkrec.models.gru.settings import GruConfig
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.sampling import PopularitySampler
from sparkrec.ranks.shared_memory import SharedMemory


@dataclass(frozen=True)
class GruState:
    """Weights with their accumulators and velocities, changed in place."""

    rows: tuple[torch.Tensor, ...]  # of each table [n_rows, 3, width]: of each row the weights, accumulator, velocity
    flat: torch.Tensor  # [3, flat size]
    memory: SharedMemory | None = None  # where all ranks have one and the same tensors

    @classmethod
    def new(cls, parameters: Parameters) -> GruState:
        """The state before the first step: accumulators and velocities 0."""
        rows = tuple(torch.stack([t, torch.zeros_like(t), torch.zeros_like(t)], dim=1) for t in parameters.tables)
        zero = torch.zeros_like(parameters.flat)
        return cls(rows, torch.stack([parameters.flat, zero, zero]))

    def tensors(self) -> dict[str, torch.Tensor]:
        """For a checkpoint."""
        return {f"rows.{i}": t for i, t in enumerate(self.rows)} | {"flat": self.flat}

    @classmethod
    def of_tensors(cls, named: dict[str, torch.Tensor]) -> GruState:
        """The inverse of ``tensors``."""
        return cls(tuple(named[f"rows.{i}"] for i in range(len(named) - 1)), named["flat"])

    def to(self, device: torch.device) -> GruState:
        """The state on a device."""
        return GruState(tuple(t.to(device) for t in self.rows), self.flat.to(device))

    def broadcast(self, comm: Comm) -> GruState:
        """The state of rank 0."""
        return GruState(tuple(comm.broadcast(t) for t in self.rows), comm.broadcast(self.flat))

    def shared(self, comm: Comm) -> GruState:
        """The state in memory that all ranks of this machine change together; as it is where that cannot be."""
        if comm.memory is None or self.flat.is_cuda:
            return self
        tensors = [comm.memory.share(t) for t in (*self.rows, self.flat)]
        rows = [t for t in tensors if t is not None]
        return GruState(tuple(rows[:-1]), rows[-1], comm.memory) if len(rows) == len(tensors) else self

    def settle(self) -> None:
        """Waits until all ranks have made their part of the last update."""
        if self.memory:
            self.memory.settle()

    def parameters(self) -> Parameters:
        """The weights alone, as views."""
        return Parameters(tuple(t[:, 0] for t in self.rows), self.flat[0])


def make_batch(
    chunk: Chunk,
    k: int,
    samples: torch.Tensor,
    places: torch.Tensor,
    epoch: int = 1,
    step: int = 0,
) -> Batch:
    """One step for the rank whose lanes are at ``places``.

    Args:
        chunk: Steps of all lanes.
        k: Which of them.
        samples: int64 [S], the additional negatives.
        places: int64, this rank's lanes.
        epoch: From 1; and
        step: of the epoch, from 0.
    """
    back = len(chunk.input) - len(chunk.target)
    inputs, targets = chunk.input[k : k + back + 1], chunk.target[k]
    if back:  # what another session left on a lane is no input of this step, and its row is not to be touched
        began = (chunk.start[k + 1 : k + back + 1] != NO_START).flip(0).cumsum(0).flip(0) > 0
        inputs = torch.cat([torch.where(began, inputs[-1], inputs[:-1]), inputs[-1:]])
    n_lanes, n_valid = len(targets), chunk.n_valid[k]
    own, lanes, compact = None, places, places
    if n_valid < n_lanes:
        valid = targets != NO_TARGET
        own = valid[places].nonzero().squeeze(1)
        lanes = places[own]
        compact = (valid.cumsum(0) - 1)[lanes]
        inputs, targets = inputs[:, valid], targets[valid]
    # The items are made distinct by sorting, on any device.
    distinct, place = torch.unique(inputs, return_inverse=True)
    candidates, column = torch.unique(torch.cat([targets, samples]), return_inverse=True)
    n_target, n_sampled = (
        torch.bincount(c, minlength=len(candidates)).float() for c in column.split([len(targets), len(samples)])
    )
    row = torch.searchsorted(candidates, distinct).clamp_max_(len(candidates) - 1)
    new = candidates[row] != distinct
    row = torch.where(new, len(candidates) - 1 + new.cumsum(0), row)
    place = place[:, compact]
    return Batch(
        inputs=distinct,
        rows=torch.cat([candidates, distinct[new]]),
        candidates=candidates,
        n_target=n_target,
        n_sampled=n_sampled,
        input=place[-1],
        input_row=row[place[-1]],
        target=column[compact],
        start=chunk.start[k + back].index_select(0, lanes),
        lanes=lanes,
        own=own,
        n_lanes=n_lanes,
        epoch=epoch,
        step=step,
        past=place[:-1],
        past_row=row[place[:-1]],
        past_start=chunk.start[k : k + back, lanes],
        types=None if chunk.types is None else chunk.types[k : k + back + 1, lanes],
    )


@dataclass(frozen=True)
class Trainer:
    """What the steps need besides the state."""

    network: Network
    config: GruConfig
    sampler: PopularitySampler
    optimizer: AdagradMomentum
    log_q: torch.Tensor  # [n_items], logq * log(count): the correction of a target
    target_weight: torch.Tensor  # [n_items], count ** -logq: weight of a target as a candidate
    sample_weight: torch.Tensor  # [n_items], count ** (-logq * alpha): of an additional negative

    @classmethod
    def create(cls, network: Network, config: GruConfig, counts: torch.Tensor) -> Trainer:
        """Builds the sampler, the optimizer and the tables of the log Q correction."""
        sampler = PopularitySampler.from_counts(counts, config.sample_alpha)
        log_q = config.logq * counts.clamp_min(1).double().log()
        weights = ((-log_q).exp().float(), (-config.sample_alpha * log_q).exp().float())
        optimizer = AdagradMomentum(config.learning_rate, config.momentum)
        return cls(network, config, sampler, optimizer, log_q.float(), *weights)

    @torch.no_grad()
    def step(
        self,
        state: GruState,
        hidden: Sequence[torch.Tensor],
        batch: Batch,
        drops: torch.Generator,
        comm: Comm,
    ) -> torch.Tensor:
        """One step of all lanes: updates ``state`` and this rank's ``hidden`` states in place.

        Args:
            state: Weights and optimizer state, the same on all ranks.
            hidden: For each of ``bptt`` steps, the latest last, and each state [this rank's lanes, width].
            batch: The step.
            drops: Common generator of the dropout masks.
            comm: The ranks.

        Returns:
            The loss summed over the lanes of all ranks.
        """
        touched, masks = self.network.touched(batch), self._masks(batch, drops)
        state.settle()
        found = self.network.gradients(
            Parameters(tuple(map(_weights_at, state.rows, touched)), state.flat[0]),
            list(hidden) if batch.own is None else [h[batch.own] for h in hidden],
            batch,
            touched,
            masks,
            lambda scores: self.loss(scores, batch.target, batch.candidates, batch.n_target, batch.n_sampled),
        )
        # The mean is over all lanes, at an epoch's end too, when some have no event: so each event weighs the same.
        share = 1.0 / batch.n_lanes
        loss, grads, own = summed(found, comm, state.memory)
        for table, t, grad, mine in zip(state.rows, touched, grads.tables, own, strict=False):
            if t.trained:
                self.optimizer.step_rows(table, t.rows[mine], grad, share, t.first)
        weights, acc, velocity = state.flat[:, found.flat_part][:, own[-1]]
        self.optimizer.step(weights, acc, velocity, grads.flat, share)
        if state.memory:
            state.memory.arrive()
        for h, new in zip(hidden, found.hidden, strict=True):
            h.copy_(new) if batch.own is None else h.index_copy_(0, batch.own, new)
        return loss

    def loss(
        self,
        scores: torch.Tensor,
        target: torch.Tensor,
        candidates: torch.Tensor,
        n_target: torch.Tensor,
        n_sampled: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of scores [B, C] summed over the lanes, and its gradient, which may lie where the scores did.

        Args:
            scores: float32 [B, C].
            target: int64 [B], columns of the scores.
            candidates: int64 [C], the items of the columns.
            n_target: float32 [C]; this and the next as in ``Batch``.
            n_sampled: float32 [C].
        """
        if self.config.loss == "cross-entropy":  # candidates weigh count ** -logq, where additional ones' is ** alpha
            weight = n_target * self.target_weight[candidates]
            weight.addcmul_(n_sampled, self.sample_weight[candidates])
            return losses.sampled_cross_entropy(scores, target, weight.log(), self.log_q[candidates[target]])
        count = n_target + n_sampled
        if self.config.loss == "bpr-max":
            return losses.bpr_max(scores, target, count, self.config.bpreg, self.config.elu)
        plain = {"bpr": losses.bpr, "top1": losses.top1, "top1-max": losses.top1_max}
        return plain[self.config.loss](scores, target, count)

    def _masks(self, batch: Batch, drops: torch.Generator) -> list[torch.Tensor | None]:
        """The network's dropout masks of this rank's lanes, the same on any number of ranks."""
        masks: list[torch.Tensor | None] = []
        for mask in self.network.masks:
            if mask.rate == 0:
                masks.append(None)
                continue
            kept = 1 - mask.rate
            if drops.device.type == "cpu":
                key = torch.empty((), dtype=torch.int64).random_(generator=drops).numpy().view(np.uint64)
                drawn = torch.empty(len(batch.lanes), mask.width)
                compiled.items.dropout(batch.lanes.numpy(), key[()], kept, np.float32(1 / kept), drawn.numpy())
                masks.append(drawn)
            else:
                drawn = torch.rand(batch.n_lanes, mask.width, device=drops.device, generator=drops) < kept
                masks.append((drawn if len(batch.lanes) == batch.n_lanes else drawn[batch.lanes]) * (1 / kept))
        return masks


def _weights_at(table: torch.Tensor, touched: Touched) -> torch.Tensor:
    """The weights of the rows that a step touches: [R, width]."""
    return table[:, :1].index_select(0, touched.rows)[:, 0]
