"""Samples of the factors from their posterior, by stochastic gradient Langevin dynamics. Tensors only.

Bayesian PMF: a rating is μ + b_u + b_i + s · (p_u · q_i + noise), s the deviation of what the biases leave, and by the
priors the noise N(0, σ²), p_u ~ N(0, σ_u² I), q_i ~ N(0, σ_i² I). With U the negative logarithm of the posterior, h the
step and z ~ N(0, I):

    θ ← θ - h/2 · ∇U + √h · z          Welling, Teh, "Bayesian Learning via Stochastic Gradient Langevin Dynamics",
                                       ICML 2011, eq. 4

A step sees m of the n ratings of a row and moves that row alone, as Ahn, Korattikara, Liu, Rajan, Welling do,
"Large-Scale Distributed Bayesian Matrix Factorization using Stochastic Gradient MCMC", KDD 2015: ∇U is n/m times the
gradient of these and of their share of the prior, and h is ε · G · m/n, so that a pass over all ratings is a step of
ε · G for each row. G = 1 / (n σ_other²/σ² + 1/σ_own²), the row's variance were the other side at its prior, makes one
ε do for rows of few ratings and of many; it does not depend on θ, so what is drawn from stays the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparkrec.models.ratings.settings import RatingsConfig


def langevin(
    rows: Tensor, gradient: Tensor, is_user: Tensor, seen: Tensor, count: Tensor, config: RatingsConfig, noise: Tensor
) -> Tensor:
    """The rows after a step: float32 [n, width].

    Args:
        rows: float32 [n, width], embeddings.
        gradient: Like it: of Σ error² + σ²/σ_own² |θ|² / count over the ratings that the step sees: of 2 σ² U.
        is_user: bool [n]; else it is an item's.
        seen: float32 [n], m: ratings of the row that the step sees.
        count: float32 [n], n: all of the row's.
        config: The priors, and ε.
        noise: Like ``rows``, standard normal.
    """
    users, items = config.sigma_users**2, config.sigma_items**2
    own, other = torch.where(is_user, users, items), torch.where(is_user, items, users)
    scaled = config.sgld_step / (count * other / config.sigma**2 + 1 / own)
    moved = rows - scaled[:, None] * gradient / (4 * config.sigma**2)
    return moved + (scaled * seen / count.clamp(min=1)).sqrt()[:, None] * noise


def sampled_products(samples: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """float32 [S, n], p_u · q_i in each sample; 0 where a row is -1.

    Args:
        samples: float32 [S, rows, width].
        users: int64 [n], rows.
        items: int64 [n], rows.
    """
    there = (users >= 0) & (items >= 0)
    return (samples[:, users.clamp(min=0)] * samples[:, items.clamp(min=0)]).sum(2) * there
