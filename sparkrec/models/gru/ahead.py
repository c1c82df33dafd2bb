"""Chunks of steps on their way to the device while the steps of the chunk before run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from sparkrec.models.gru.lanes import Chunk

Arrival = Callable[[], Chunk]  # waits for a chunk that was sent


def on_device(chunks: Iterable[Chunk], device: torch.device) -> Iterator[Chunk]:
    """The chunks on a device, in their order, each made and sent before the steps of the one before it run."""
    send = _copier(device) if device.type == "cuda" else lambda chunk: lambda: chunk
    return one_ahead(chunks, send)


def one_ahead(chunks: Iterable[Chunk], send: Callable[[Chunk], Arrival]) -> Iterator[Chunk]:
    """What ``send`` gives for each chunk, where the next one is sent before one is handed on."""
    before: Arrival | None = None
    for chunk in chunks:
        sent = send(chunk)
        if before:
            yield before()
        before = sent
    if before:
        yield before()


def _copier(device: torch.device) -> Callable[[Chunk], Arrival]:
    """Copies from pinned memory on a stream of their own, beside what the device computes."""
    beside = torch.cuda.Stream(device)

    def send(chunk: Chunk) -> Arrival:
        pinned = chunk.map(torch.Tensor.pin_memory)
        with torch.cuda.stream(beside):
            there = pinned.map(lambda tensor: tensor.to(device, non_blocking=True))
            copied = beside.record_event()

        def arrive() -> Chunk:
            here = torch.cuda.current_stream(device)
            here.wait_event(copied)
            for tensor in there.tensors:
                tensor.record_stream(here)  # its memory is not given to another copy while steps read it
            return there

        return arrive

    return send
