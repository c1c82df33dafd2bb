"""The plain GRU's training step on a GPU, recorded once and replayed.

A step of a small model starts a hundred operations, each of which a GPU ends sooner than the next is started. A
recorded one (a CUDA graph) starts them all at once, if none of their sizes varies and none waits for a number. So here
a step's items are not made distinct: every target, negative and input is a row of its own, and equal rows, found by
sorting, get the sum of their gradients (``protocol.Repeats``). Losses are the same: a candidate that is there three
times weighs as much as one that counts three.

Source: PyTorch's documentation, "CUDA Graphs" (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sparkrec.models.gru.event_types import TypedNetwork
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import Batch, Repeats
from sparkrec.models.gru.step import GruState, Trainer, make_batch
from sparkrec.ranks.comm import Comm

_WARM_UP = 3  # steps that are made as they are before one is recorded, so that libraries have made their choices


class GraphedSteps:
    """The steps of one epoch on one rank: updates the state and the hidden states, which begin with zeros.

    Steps in which a lane has no event are made as they are: their sizes vary. So are all where ``record`` is false,
    without which nothing here needs a GPU.
    """

    def __init__(self, trainer: Trainer, state: GruState, comm: Comm, n_lanes: int, record: bool = True) -> None:
        """Makes what the recorded step reads and writes.

        Args:
            trainer: Of a network that is ``graphable``.
            state: The weights, changed in place.
            comm: One rank.
            n_lanes: The lanes.
            record: False: no step is recorded.
        """
        self._trainer, self._state, self._comm, self._record = trainer, state, comm, record
        device, n_sample = state.flat.device, trainer.config.n_sample
        self._hidden = [torch.zeros(n_lanes, width, device=device) for width in trainer.network.state_widths]
        self._places = torch.arange(n_lanes, device=device)
        self._input, self._target = torch.zeros(2, n_lanes, dtype=torch.int64, device=device)
        self._start = torch.zeros(n_lanes, dtype=torch.int8, device=device)
        self._samples = torch.zeros(n_sample, dtype=torch.int64, device=device)
        self._types = torch.zeros(n_lanes, dtype=torch.int64, device=device) if trainer.config.event_types else None
        self._loss = torch.zeros((), device=device)
        self._made = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, chunk: Chunk, samples: torch.Tensor, drops: torch.Generator) -> Iterator[torch.Tensor]:
        """Goes through the steps of a chunk.

        Args:
            chunk: Steps of all lanes, on the state's device.
            samples: int64 [K, S], the additional negatives of each step.
            drops: Generator of the dropout masks, the same for all chunks of an epoch.

        Yields:
            Of each step the loss summed over the lanes; it holds until the next step.
        """
        for k, n_valid in enumerate(chunk.n_valid):
            if n_valid < len(self._places):
                batch = make_batch(chunk, k, samples[k], self._places)
                yield self._trainer.step(self._state, self._hidden, batch, drops, self._comm)
                continue
            given = (chunk.input[k], chunk.target[k], chunk.start[k], samples[k])
            for here, there in zip((self._input, self._target, self._start, self._samples), given, strict=True):
                here.copy_(there)
            if self._types is not None and chunk.types is not None:
                self._types.copy_(chunk.types[k])
            self._make(drops)
            yield self._loss

    def _make(self, drops: torch.Generator) -> None:
        """Makes the step that the fixed tensors hold."""
        if not self._record:
            self._step(drops)
        elif self._made < _WARM_UP:
            here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                self._step(drops)
            here.wait_stream(beside)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                self._graph.register_generator_state(drops)
                with torch.cuda.graph(self._graph):  # makes nothing yet
                    self._step(drops)
            self._graph.replay()
        self._made += 1

    def _step(self, drops: torch.Generator) -> None:
        batch = repeated_batch(self._input, self._target, self._start, self._samples, self._types)
        self._loss.copy_(self._trainer.step(self._state, self._hidden, batch, drops, self._comm))


def repeated_batch(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    start: torch.Tensor,
    samples: torch.Tensor,
    types: torch.Tensor | None = None,
) -> Batch:
    """A step in which all lanes have an event, by operations whose sizes do not depend on the items.

    Args:
        inputs: int64 [L], items.
        targets: int64 [L], items.
        start: int8 [L].
        samples: int64 [S], the additional negatives.
        types: int64 [L], of the inputs' events.
    """
    n_lanes, n = len(targets), len(targets) + len(samples)
    rows = torch.cat([targets, samples, inputs])
    lanes = torch.arange(n_lanes, device=rows.device)
    counts = torch.zeros(2, n, device=rows.device)
    counts[0, :n_lanes], counts[1, n_lanes:] = 1.0, 1.0
    none = lanes.new_zeros(0, n_lanes)
    return Batch(
        inputs=inputs,
        rows=rows,
        candidates=rows[:n],
        n_target=counts[0],
        n_sampled=counts[1],
        input=lanes,
        input_row=lanes + n,
        target=lanes,
        start=start,
        lanes=lanes,
        own=None,
        n_lanes=n_lanes,
        epoch=1,
        step=0,
        past=none,
        past_row=none,
        past_start=none.to(torch.int8),
        repeats=Repeats(*map(first_places, (inputs, rows, rows[:n]))),
        types=None if types is None else types[None],
    )


def first_places(items: torch.Tensor) -> torch.Tensor:
    """int64 [n], of each of the items [n] the first place that has the same one."""
    found, order = torch.sort(items, stable=True)
    begins = torch.cat([torch.ones_like(found[:1], dtype=torch.bool), found[1:] != found[:-1]])
    places = torch.arange(len(items), device=items.device)
    run = torch.where(begins, places, 0).cummax(0).values  # where the run of equal ones begins
    return torch.empty_like(order).index_copy_(0, order, order[run])


def graphable(trainer: Trainer, state: GruState, comm: Comm) -> bool:
    """Whether ``GraphedSteps`` can record the steps: a plain network on one rank's GPU, gradients over one step."""
    network = trainer.network.plain if isinstance(trainer.network, TypedNetwork) else trainer.network
    plain = isinstance(network, GruNetwork) and network.bptt == 1
    return plain and comm.size == 1 and state.flat.is_cuda
