"""What a network has in common with the plain one that it is made around."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import Mask


@dataclass(frozen=True)
class AroundPlain:
    """The parts of a ``protocol.Network`` that are the plain network's."""

    plain: GruNetwork

    @property
    def n_items(self) -> int:
        """As the plain network's."""
        return self.plain.n_items

    @property
    def dim(self) -> int:
        """As the plain network's."""
        return self.plain.dim

    @property
    def flat_size(self) -> int:
        """As the plain network's."""
        return self.plain.flat_size

    @property
    def state_widths(self) -> tuple[int, ...]:
        """As the plain network's."""
        return self.plain.state_widths

    @property
    def masks(self) -> tuple[Mask, ...]:
        """As the plain network's."""
        return self.plain.masks

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """See ``Network``."""
        self.plain.init_flat(flat, generator)

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """See ``Network``."""
        return self.plain.flat_tensors(flat)
