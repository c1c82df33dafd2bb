"""Beginning with the weights of an earlier model of the same shape, over a catalogue that has grown since."""

from __future__ import annotations

import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event
from sparkrec.models.gru.choice import stored_network
from sparkrec.models.gru.protocol import Network, Parameters, Table, from_tensors, init_rows
from sparkrec.ranks.checkpoint import load_model


def continued(network: Network, path: str, seed: int) -> Parameters:
    """The weights of an earlier model; items that it does not have get new rows, as a new network's.

    Item numbers never change, so the earlier items are the first rows. A new row depends on the seed and its place
    after them, not on how many there are. Adagrad's accumulators are no part of a model: they begin at 0 again.

    Args:
        network: The network to train.
        path: Folder of the earlier model.
        seed: Of the new rows.

    Raises:
        UserError: There is no such model, or its network has another shape.
        InvariantError: It has more items than this catalogue.
    """
    weights, described = load_model(path)
    earlier = stored_network(described, weights)
    if earlier.n_items > network.n_items:
        raise InvariantError(f"{path} has {earlier.n_items} items, the catalogue only {network.n_items}")
    if _shape(earlier) != _shape(network):
        raise UserError(
            "the earlier model has another shape",
            where=path,
            fix="set gru.warm_start=false, or the layers and embedding of that model",
        )
    parameters = from_tensors(earlier, weights)
    log_event("warm_start", path=path, items=earlier.n_items, new_items=network.n_items - earlier.n_items)
    grown = [_grown(*pair, seed) for pair in zip(network.tables, parameters.tables, strict=True)]
    return Parameters(tuple(grown), parameters.flat)


def _shape(network: Network) -> list[object]:
    """What two networks have in common whose weights fit; a table of the catalogue's length may grow."""
    tables = [(t.name, t.width, t.n_rows == network.n_items or t.n_rows) for t in network.tables]
    named = network.flat_tensors(torch.empty(network.flat_size))
    return [tables, {name: part.shape for name, part in named.items()}]


def _grown(table: Table, rows: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.cat([rows, init_rows(table, table.n_rows - len(rows), seed, first=len(rows))])
