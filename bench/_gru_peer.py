"""GRU4Rec's own PyTorch code as a peer: loaded from a checkout, never a part of this project (its licence forbids)."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

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
