"""How far biases of ratings are drawn towards 0."""

from __future__ import annotations

MOST_SHRUNK = 1000.0  # ratings, at most
_LEAST_NOISE = 0.1  # of the ratings' variance


def shrinkage(variance: float, of_users: float, of_items: float) -> tuple[float, float]:
    """How many ratings a bias of users, and one of items, is shrunk by: λ = σ² / σ_b², as the posterior mean is.

    With r = μ + b_u + b_i + ε of independent parts, σ² = variance − σ_u² − σ_i²: variance components by the method of
    moments (Searle, Casella and McCulloch 1992, "Variance components").

    Args:
        variance: Of the ratings.
        of_users: σ_u²: Σ_u ((Σ e)² − Σ e²) / (n − 1) over Σ_u n, of the users with n > 1 ratings; e = r − μ.
        of_items: σ_i², likewise of items.
    """
    noise = max(variance - of_users - of_items, _LEAST_NOISE * variance)
    users, items = (noise / part if part * MOST_SHRUNK > noise else MOST_SHRUNK for part in (of_users, of_items))
    return users, items
