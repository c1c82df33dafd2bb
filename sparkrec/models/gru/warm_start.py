"""Beginning with the weights of an earlier model over a catalogue that has grown since, or with prod2vec's vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.log import log_event
from sparkrec.models.gru.choice import stored_network
from sparkrec.models.gru.event_types import TYPE_ROWS
from sparkrec.models.gru.protocol import Network, Parameters, Table, from_tensors, init_rows
from sparkrec.models.prod2vec.embeddings import unit_vectors
from sparkrec.ranks.checkpoint import load_model

EMBEDDING = "embedding"  # the table of the items' inputs


def continued(network: Network, path: str, seed: int, event_types: Mapping[str, int] | None = None) -> Parameters:
    """The weights of an earlier model; items that it does not have get new rows, as a new network's.

    Item numbers never change, so the earlier items are the first rows. A new row depends on the seed and its place
    after them, not on how many there are. Types of events are found by their names. Adagrad's accumulators are no part
    of a model: they begin at 0 again.

    Args:
        network: The network to train.
        path: Folder of the earlier model.
        seed: Of the new rows.
        event_types: The codes of the types, where the network has such.

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
            fix="set gru.warm_start=false, or the cell, layers and embedding of that model",
        )
    parameters = from_tensors(earlier, weights)
    log_event("warm_start", path=path, items=earlier.n_items, new_items=network.n_items - earlier.n_items)
    grown = [
        _renumbered(table, rows, described["event_types"], event_types or {})
        if table.name == TYPE_ROWS
        else _grown(table, rows, seed)
        for table, rows in zip(network.tables, parameters.tables, strict=True)
    ]
    return Parameters(tuple(grown), parameters.flat)


def begin_with(network: Network, parameters: Parameters, path: str) -> None:
    """Writes the unit vectors of a prod2vec model into new embeddings; an item without one keeps what was drawn.

    Args:
        network: The network, which has a table ``embedding``.
        parameters: Its weights, changed in place.
        path: Folder of the prod2vec model.

    Raises:
        UserError: The vectors are not as wide as the embeddings; there is no such model.
        InvariantError: It is of other items.
    """
    vectors, _ = unit_vectors(path, network.n_items)
    (table,) = (rows for t, rows in zip(network.tables, parameters.tables, strict=True) if t.name == EMBEDDING)
    if vectors.shape[1] != table.shape[1]:
        fix = f"set prod2vec.dim={table.shape[1]}, or the width of the GRU's embedding to {vectors.shape[1]}"
        raise UserError("prod2vec's vectors are not as wide as the embeddings", where=path, fix=fix)
    there = (vectors != 0).any(1)
    table[there] = vectors[there]
    log_event("gru_pretrained", path=path, items=int(there.sum()), drawn=int((~there).sum()))


def _shape(network: Network) -> list[object]:
    """What two networks have in common whose weights fit; tables of the catalogue's length and of types may grow."""
    tables = [(t.name, t.width, t.n_rows == network.n_items or t.name == TYPE_ROWS or t.n_rows) for t in network.tables]
    named = network.flat_tensors(torch.empty(network.flat_size))
    return [tables, {name: part.shape for name, part in named.items()}]


def _grown(table: Table, rows: torch.Tensor, seed: int) -> torch.Tensor:
    return torch.cat([rows, init_rows(table, table.n_rows - len(rows), seed, first=len(rows))])


def _renumbered(table: Table, rows: torch.Tensor, before: Mapping[str, int], now: Mapping[str, int]) -> torch.Tensor:
    """The rows of the types, each at its present code; a type that the earlier model does not have begins at 0."""
    found = torch.zeros(table.n_rows, table.width)
    for name in before.keys() & now.keys():
        found[now[name]] = rows[before[name]]
    return found
