"""The network that a configuration asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sparkrec.models.gru.bloom import BloomNetwork
from sparkrec.models.gru.event_types import TYPE_ROWS, TypedNetwork
from sparkrec.models.gru.hierarchical import HierarchicalNetwork
from sparkrec.models.gru.network import gru_network
from sparkrec.models.gru.parallel import ParallelNetwork
from sparkrec.models.gru.protocol import Network
from sparkrec.models.gru.settings import GruConfig

VECTORS = "vectors."  # prefix of the items' vectors among a model's weights: serving needs those of the training
HIERARCHICAL = ("hierarchical-init", "hierarchical-all")


def by_user(config: GruConfig) -> bool:
    """Whether the network walks each user's sessions one after another."""
    return config.network in HIERARCHICAL


def build_network(config: GruConfig, n_items: int, vectors: Mapping[str, torch.Tensor], n_types: int = 0) -> Network:
    """The network that the configuration asks for, over items 0 … n_items − 1.

    Args:
        config: The settings.
        n_items: Size of the catalogue.
        vectors: For each of ``gru.features`` float [n_items, width], on the device of the weights.
        n_types: With ``gru.event_types`` the number of types, that of none among them.
    """
    if by_user(config):
        return HierarchicalNetwork(
            n_items=n_items,
            layers=tuple(config.layers),
            user_width=config.user_units,
            all_steps=config.network == "hierarchical-all",
            dropout_embedding=config.dropout_embedding,
            dropout_hidden=config.dropout_hidden,
        )
    if config.network == "parallel":
        return ParallelNetwork(
            n_items=n_items,
            layers=tuple(config.layers),
            vectors=vectors,
            feature_layers=tuple(config.feature_layers),
            schedule=config.schedule,
            epochs=config.epochs,
            dropout_embedding=config.dropout_embedding,
            dropout_hidden=config.dropout_hidden,
        )
    plain = gru_network(config, n_items)
    if config.event_types:
        return TypedNetwork(plain, n_types)
    return BloomNetwork(plain, config.bloom_rows, config.bloom_hashes, config.seed) if config.bloom_rows else plain


def stored_network(described: dict[str, Any], weights: Mapping[str, torch.Tensor]) -> Network:
    """The network of a model with this ``model.json`` and these weights."""
    vectors = {name.removeprefix(VECTORS): m for name, m in weights.items() if name.startswith(VECTORS)}
    n_types = len(weights[TYPE_ROWS]) if TYPE_ROWS in weights else 0
    return build_network(GruConfig(**described["config"]), described["n_items"], vectors, n_types)
