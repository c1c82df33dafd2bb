"""GRU4Rec's own PyTorch code as a peer: loaded from a checkout, never a part of this project (its licence forbids)."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

if TYPE_CHECKING:
    from sparkrec.models.gru.settings import GruConfig

CPU = torch.device("cpu")


def load_peer(folder: str) -> Any:
    """The module ``gru4rec_pytorch`` of a checkout in ``folder``."""
    path = Path(folder, "gru4rec_pytorch.py")
    if not path.is_file():
        sys.exit(f"no gru4rec_pytorch.py in {folder}: give --peer a checkout of GRU4Rec_PyTorch_Official")
    spec = importlib.util.spec_from_file_location("gru4rec_pytorch", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Sends what the peer prints to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def events_frame(sessions: list[list[int]]) -> pd.DataFrame:
    """Sessions, in order of their first event, in the columns that the peer reads."""
    rows = [(s, item, t) for s, items in enumerate(sessions) for t, item in enumerate(items)]
    frame = pd.DataFrame(rows, columns=["SessionId", "ItemId", "Time"])
    return frame.assign(Time=frame["Time"] + 1_000_000 * frame["SessionId"])


def item_numbers(events: pd.DataFrame) -> pd.Series:
    """The peer's map of the items that occur to rows: the numbers as they are."""
    items = sorted(events["ItemId"].unique())
    return pd.Series(items, index=items, name="ItemIdx", dtype="int32")


def peer_model(peer: Any, config: GruConfig) -> Any:
    """The official model with our settings, not yet trained."""
    return peer.GRU4Rec(
        layers=list(config.layers), loss=config.loss, batch_size=config.lanes, n_sample=config.n_sample,
        dropout_p_embed=config.dropout_embedding, dropout_p_hidden=config.dropout_hidden, n_epochs=config.epochs,
        learning_rate=config.learning_rate, momentum=config.momentum, sample_alpha=config.sample_alpha,
        constrained_embedding=config.embedding == "constrained", bpreg=config.bpreg, elu_param=config.elu,
        logq=config.logq, device=CPU,
    )  # fmt: skip


def official_quality(
    peer: Any, train: list[list[int]], test: list[list[int]], config: GruConfig, seed: int
) -> dict[str, float]:
    """Trains the official code with our settings, and judges it over all trained items, ties against the model.

    Args:
        peer: The module, see ``load_peer``.
        train: Items of the sessions to train on, sessions in order of their start.
        test: Of those to judge on; events of items that are not trained are passed over.
        config: Ours.
        seed: Of the dropouts and negative samples.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    trained = {item for items in train for item in items}
    known = [[item for item in items if item in trained] for items in test]
    model = peer_model(peer, config)
    with quietly():
        began = time.perf_counter()
        model.fit(events_frame([items for items in train if len(items) > 1]), sample_cache_max_size=10_000_000)
        seconds = time.perf_counter() - began
        tests = [items for items in known if len(items) > 1]
        recall, mrr = _judge(peer, model, events_frame(tests))
    return {"recall@20": recall, "mrr@20": mrr, "train_s": round(seconds, 1)}


def _judge(peer: Any, model: Any, test: pd.DataFrame) -> tuple[float, float]:
    """Recall@20 and MRR@20 by the peer's own walk of sessions in parallel, which gives inputs and targets."""
    hidden = [torch.zeros(256, width) for width in model.layers]
    found = []
    walk = peer.SessionDataIterator(test, 256, 0, 0, 0, "ItemId", "SessionId", "Time", device=CPU,
                                    itemidmap=model.data_iterator.itemidmap)  # fmt: skip

    def moved_on(n_valid: int, finished: Any, valid: Any) -> int:
        return model._adjust_hidden(n_valid, finished, valid, hidden)

    with torch.no_grad():
        for inputs, targets in walk(enable_neg_samples=False, reset_hook=moved_on):
            scores = model.model.forward(inputs, hidden, None, training=False)
            own = scores.gather(1, targets[:, None])
            found.append((scores >= own).sum(1))
    ranks = torch.cat(found)
    hit = ranks <= 20
    return float(hit.double().mean()), float((hit / ranks.double()).mean())


def peer_weights(model: Any, embedding: str) -> dict[str, torch.Tensor]:
    """Copies of the peer's weights under the names of our model files.

    Its first layer without an embedding has the gates in the order new, reset, update, and its update gate says how
    much of the new state is taken, ours how much of the old one is kept: σ(−x) = 1 − σ(x).
    """
    found = {"bias": model.By.weight[:, 0], "embedding" if embedding == "constrained" else "output": model.Wy.weight}
    layers = list(model.G)
    first = 0
    if embedding == "separate":
        found["embedding"] = model.E.weight
    if embedding == "none":
        first = 1
        found["input_gates"] = _gates(*model.GE.Wx0.weight.chunk(3, 1), 1)
        found["gru.0.bias"] = _gates(*model.GE.Bh0.chunk(3), 0)
        reset, update = model.GE.Wrz0.chunk(2, 1)
        found["gru.0.weight_hh"] = _gates(model.GE.Wh0.T, reset.T, update.T, 0)
    for i, cell in enumerate(layers, first):
        found |= {f"gru.{i}.{name}": weight for name, weight in cell.named_parameters()}
    return {name: weight.detach().clone() for name, weight in found.items()}


def _gates(new: torch.Tensor, reset: torch.Tensor, update: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.cat([reset, -update, new], dim)
