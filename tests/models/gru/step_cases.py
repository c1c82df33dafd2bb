"""Drawn trainings of a few steps, and the step by operations that others are held against."""

import numpy as np
import torch
from hypothesis import strategies as st

from sparkrec.models.gru.choice import build_network
from sparkrec.models.gru.lanes import NO_TARGET, Chunk
from sparkrec.models.gru.protocol import init_parameters
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import GruState, Trainer, make_batch
from sparkrec.ranks.comm import SingleProcess

N_ITEMS, N_TYPES, ONE = 30, 4, SingleProcess()


def trainer_of(config, n_items=N_ITEMS):
    network = build_network(config, n_items, {}, N_TYPES)
    counts = torch.arange(1, n_items + 1)
    return Trainer.create(network, config, counts), GruState.new(init_parameters(network, 1))


@st.composite
def trainings(draw, embeddings=("constrained",), cells=("gru",), typed=(False,)):
    """Settings and a few steps in which lanes begin sessions, and some have no event."""
    widths = st.integers(1, 9)
    lanes, n = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    embedding = draw(st.sampled_from(embeddings))
    config = GruConfig(
        cell="gru" if embedding == "none" else draw(st.sampled_from(cells)),
        layers=draw(st.lists(widths, min_size=1, max_size=3)), lanes=lanes, n_sample=draw(st.integers(1, 40)),
        loss=draw(st.sampled_from(["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"])),
        dropout_embedding=draw(st.sampled_from([0.0, 0.4])), dropout_hidden=draw(st.sampled_from([0.0, 0.3])),
        embedding=embedding, embedding_dim=3, learning_rate=0.1,
        momentum=draw(st.sampled_from([0.0, 0.3])), event_types=draw(st.sampled_from(typed)),
    )  # fmt: skip
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    target = rng.integers(0, N_ITEMS, (n, lanes))
    target[(rng.random((n, lanes)) < draw(st.sampled_from([0.0, 0.5]))) & (np.arange(lanes) > 0)] = NO_TARGET
    parts = (rng.integers(0, N_ITEMS, (n, lanes)), target, rng.integers(0, 3, (n, lanes)).astype(np.int8))
    types = torch.from_numpy(rng.integers(1, N_TYPES, (n, lanes))) if config.event_types else None
    chunk = Chunk(*map(torch.from_numpy, parts), n_valid=(target != NO_TARGET).sum(1).tolist(), types=types)
    return config, chunk, torch.from_numpy(rng.integers(0, N_ITEMS, (n, config.n_sample)))


def plain_steps(config, chunk, samples):
    """The state after the steps by operations, and their losses."""
    lanes = chunk.target.shape[1]
    trainer, state = trainer_of(config)
    hidden = [torch.zeros(lanes, width) for width in trainer.network.state_widths]
    drops, places = torch.Generator().manual_seed(5), torch.arange(lanes)
    batches = [make_batch(chunk, k, samples[k], places) for k in range(len(samples))]
    return state, [float(trainer.step(state, hidden, batch, drops, ONE)) for batch in batches]
