"""Whether a step here is a step of GRU4Rec's own code: the same weights, batches and negatives, losses compared.

    python bench/gru_equality.py --peer DIR

DIR is a checkout of GRU4Rec_PyTorch_Official. Two layers (one without an embedding, with which the peer cannot run
two), Adagrad with momentum, no dropout (its masks are random), one epoch of 50 steps and more, with its tail of fewer
sessions than lanes; the peer's own iterator gives its batches. In one thing the comparison departs from the peer's
``fit``: with logq it takes the first ``batch_size`` candidates for targets, in the tail too, where there are fewer;
here it is told the true number.

``ours`` is the largest relative difference of a loss over all steps and settings, ``peer`` what is allowed.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from _gru_peer import CPU, events_frame, item_numbers, load_peer, peer_weights, quietly
from _measure import last_line, say

from sparkrec.models.gru.fused import FusedSteps
from sparkrec.models.gru.lanes import NO_TARGET, chunks, lane_table, walk_lanes
from sparkrec.models.gru.network import gru_network
from sparkrec.models.gru.protocol import from_tensors, to_tensors
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import GruState, Trainer, make_batch
from sparkrec.ranks.comm import SingleProcess

ALLOWED = 1e-5
N_ITEMS, LANES, N_SAMPLE, SESSIONS = 500, 20, 64, 130
SETTINGS = [(loss, mode) for loss in ("cross-entropy", "bpr-max") for mode in ("constrained", "separate", "none")]


def main() -> None:
    """Compares every setting; exit code 1 where a loss differs by more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    peer = load_peer(parser.parse_args().peer)
    torch.set_num_threads(1)
    worst = max(compare(peer, loss, mode) for loss, mode in SETTINGS)
    last_line(bench="gru_equality", ours=worst, peer=ALLOWED, ratio=ALLOWED / max(worst, 1e-12),
              unit="relative difference of losses", runs=sum(len(ways(mode)) for _, mode in SETTINGS))  # fmt: skip
    sys.exit(int(worst > ALLOWED))


def compare(peer: Any, loss: str, mode: str) -> float:
    """The largest relative difference of a step's loss."""
    config = GruConfig(
        layers=[24] if mode == "none" else [24, 20], embedding=mode, embedding_dim=28, lanes=LANES, loss=loss,
        n_sample=N_SAMPLE, logq=0.8, dropout_embedding=0.0, dropout_hidden=0.0,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    popularity = 1 / np.arange(1, N_ITEMS + 1)
    chosen = rng.choice(N_ITEMS, 20 * SESSIONS, p=popularity / popularity.sum())
    sessions = [part[: rng.integers(2, 17)].tolist() for part in np.split(chosen, SESSIONS)]
    counts = torch.bincount(torch.tensor([i for s in sessions for i in s]), minlength=N_ITEMS)
    samples = torch.randint(0, N_ITEMS, (1000, N_SAMPLE), generator=torch.Generator().manual_seed(1))
    samples = torch.where(counts[samples] > 0, samples, 0)
    network = gru_network(config, N_ITEMS)
    with quietly():
        torch.manual_seed(1)
        model = peer.GRU4RecModel(
            N_ITEMS, config.layers, embedding=config.embedding_dim if mode == "separate" else 0,
            constrained_embedding=mode == "constrained",
        )  # fmt: skip
        initial = {name: w.detach().clone() for name, w in peer_weights(model, mode).items()}
        theirs = their_losses(peer, model, config, sessions, counts, samples)
    given = (network, initial, model, config, sessions, counts, samples, theirs)
    return max(compared(*given, whole) for whole in ways(mode))


def ways(mode: str) -> list[bool]:
    """Whether our steps are compiled as a whole: where they can be, both with and without."""
    return [True, False] if mode == "constrained" else [False]


def compared(
    network: Any, initial: dict[str, torch.Tensor], model: Any, config: GruConfig, sessions: list[list[int]],
    counts: torch.Tensor, samples: torch.Tensor, theirs: list[tuple[int, float]], whole: bool,
) -> float:  # fmt: skip
    """The largest relative difference of a step's loss, our steps compiled as a whole or made by operations."""
    state = GruState.new(from_tensors(network, initial))
    ours = our_losses(network, state, config, sessions, counts, samples, whole)
    if [n for n, _ in ours] != [n for n, _ in theirs] or len(ours) < 50:
        sys.exit(f"the batches differ: {len(ours)} steps here, {len(theirs)} there")
    differences = [abs(a - b) / b for (_, a), (_, b) in zip(ours, theirs, strict=True)]
    stored = to_tensors(network, state.parameters())
    trained = peer_weights(model, config.embedding)
    weights = max((stored[name] - w).abs().max().item() for name, w in trained.items())
    way = "whole steps" if whole else "by operations"
    say(f"{config.loss}, {config.embedding}, {way}: {len(ours)} steps, {sum(n < LANES for n, _ in ours)} in the tail,",
        f"losses {ours[0][1]:.4f} … {ours[-1][1]:.4f},",
        f"largest difference {max(differences):.1e}, of a weight {weights:.1e}")  # fmt: skip
    return max(differences)


def our_losses(
    network: Any, state: GruState, config: GruConfig, sessions: list[list[int]], counts: torch.Tensor,
    samples: torch.Tensor, whole: bool,
) -> list[tuple[int, float]]:  # fmt: skip
    """(lanes with an event, loss divided by the lanes) of each step."""
    trainer, comm = Trainer.create(network, config, counts), SingleProcess()
    numbers = np.repeat(np.arange(len(sessions)), [len(s) for s in sessions])
    walked = walk_lanes(numbers, np.concatenate(sessions).astype(np.int32), LANES)
    table = lane_table({0: walked}, [LANES], comm)
    (chunk,) = chunks(table, table.length, comm)
    drops = torch.Generator()
    if whole:
        losses = list(FusedSteps(trainer, state, table.places, LANES).run(chunk, samples[: table.length], drops))
    else:
        hidden = [torch.zeros(LANES, width) for width in network.state_widths]
        batches = (make_batch(chunk, k, samples[k], table.places) for k in range(table.length))
        losses = [float(trainer.step(state, hidden, batch, drops, comm)) for batch in batches]
    valid = (chunk.target != NO_TARGET).sum(1).tolist()
    return [(n, loss / LANES) for n, loss in zip(valid, losses, strict=True)]


class GivenSamples:
    """In the place of the peer's cache of negatives."""

    def __init__(self, samples: torch.Tensor) -> None:
        self._left = iter(samples)

    def get_sample(self) -> torch.Tensor:
        """The next step's negatives."""
        return next(self._left)


def their_losses(
    peer: Any, model: Any, config: GruConfig, sessions: list[list[int]], counts: torch.Tensor, samples: torch.Tensor
) -> list[tuple[int, float]]:
    """The same of the peer: its iterator, network, loss and optimizer, in the order of its ``fit``."""
    gru = peer.GRU4Rec(
        layers=config.layers, loss=config.loss, batch_size=LANES, sample_alpha=config.sample_alpha, n_sample=N_SAMPLE,
        bpreg=config.bpreg, elu_param=config.elu, logq=config.logq, device=CPU,
    )  # fmt: skip
    gru.P0 = counts.float()
    data = events_frame(sessions)
    batches = peer.SessionDataIterator(
        data, LANES, n_sample=1, sample_cache_max_size=1, device=CPU, itemidmap=item_numbers(data)
    )
    batches.sample_cache = GivenSamples(samples)
    optimizer = peer.IndexedAdagradM(model.parameters(), config.learning_rate, config.momentum)
    hidden = [torch.zeros(LANES, width) for width in config.layers]

    def reset(n_valid: int, finished: np.ndarray, valid: np.ndarray) -> bool:
        return bool(gru._adjust_hidden(n_valid, finished, valid, hidden))

    found = []
    for inputs, candidates in batches(enable_neg_samples=True, reset_hook=reset):
        for h in hidden:
            h.detach_()
        model.zero_grad()
        scores = model.forward(inputs.long(), hidden, candidates.long(), training=True)
        loss = gru.loss_function(scores, candidates.long(), len(inputs)) / LANES
        loss.backward()
        optimizer.step()
        found.append((len(inputs), loss.item()))
    return found


if __name__ == "__main__":
    main()
