"""Samples of a posterior that is known, and what becomes of them."""

import dataclasses

import numpy as np
import pytest
import torch

from sparkrec.errors import UserError
from sparkrec.models.ratings.posterior import langevin, sampled_products
from sparkrec.models.ratings.scorer import RatingScorer
from sparkrec.models.ratings.serve import Served
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.scorer import Wanted
from sparkrec.ranks.checkpoint import save_model
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import TopKConfig

CONFIG = RatingsConfig(
    network="mf", penalty="priors", posterior="sgld", sigma=0.8, sigma_users=0.6, sigma_items=0.9, sgld_step=0.1
)


@pytest.mark.parametrize("is_user", [True, False])
def test_langevin_dynamics_sample_the_posterior(is_user):
    """Ridge regression on fixed vectors of the other side, half of the ratings a step, in many chains at once."""
    draws, chains = torch.Generator().manual_seed(0), 2000
    other = torch.randn(10, 2, generator=draws) * 0.7
    error = torch.randn(10, generator=draws)
    own = CONFIG.sigma_users if is_user else CONFIG.sigma_items
    precision = other.T @ other / CONFIG.sigma**2 + torch.eye(2) / own**2
    expected = torch.linalg.solve(precision, other.T @ error / CONFIG.sigma**2)
    rows, sides = torch.zeros(chains, 2), torch.full((chains,), is_user)
    seen, count = torch.full((chains,), 5.0), torch.full((chains,), 10.0)
    config = dataclasses.replace(CONFIG, sgld_step=0.05)
    for step in range(240):
        half = slice(0, 5) if step % 2 else slice(5, 10)
        left = rows @ other[half].T - error[half]
        gradient = 2 * left @ other[half] + 2 * (CONFIG.sigma / own) ** 2 * rows * 5 / 10
        rows = langevin(rows, gradient, sides, seen, count, config, torch.randn(chains, 2, generator=draws))
    torch.testing.assert_close(rows.mean(0), expected, atol=0.04, rtol=0.05)
    torch.testing.assert_close(torch.cov(rows.T), torch.linalg.inv(precision), atol=0.03, rtol=0.1)


def model_of(folder, **settings):
    """Two samples; user 0 and item 0 are known, the others are not."""
    samples = torch.zeros(2, 4, 2)
    samples[0, 0], samples[1, 0], samples[0, 2], samples[1, 2] = (torch.tensor(one) for one in ([1.0, 0.0], [0.0, 2.0], [0.5, 9.0], [9.0, 0.25]))  # fmt: skip  # noqa: E501
    config = dataclasses.asdict(dataclasses.replace(CONFIG, dim=2, **settings))
    shape = {"network": "mf", "n_users": 2, "n_items": 2, "dim": 2, "user_features": [], "item_features": [], "hidden": [], "filter_widths": []}  # fmt: skip  # noqa: E501
    weights = {
        "table": samples.mean(0), "samples": samples, "user_bias": torch.tensor([0.5, 0.0]),
        "item_bias": torch.tensor([-0.25, 0.0]), "user_count": torch.tensor([4, 0]), "item_count": torch.tensor([6, 0]),
        "user_codes": torch.zeros(2, 0, dtype=torch.int64), "item_codes": torch.zeros(2, 0, dtype=torch.int64),
        "item_vectors": torch.zeros(2, 0),
    }  # fmt: skip
    about = {"config": config, "shape": shape, "mean": 3.0, "ends": [1.0, 5.0], "shrunk": [2.0, 4.0], "scale": 0.5}
    save_model(str(folder), weights, about)
    return str(folder)


def test_a_prediction_has_the_mean_and_the_deviation_of_the_samples_and_of_the_biases(tmp_path):
    served = Served(model_of(tmp_path))
    users, items = np.array([0, 0, -1]), np.array([0, 1, 9])
    # products of the samples: 0.5 and 0.5 for the known pair; none for the others
    assert served.predict(users, items).tolist() == pytest.approx([3.0 + 0.5 - 0.25 + 0.5 * 0.5, 3.5, 3.0])
    noise = (0.5 * 0.8) ** 2
    biases = [noise / (4 + 2) + noise / (6 + 4), noise / (4 + 2) + noise / 4, noise / 2 + noise / 4]
    assert served.deviation(users, items).tolist() == pytest.approx([b**0.5 for b in biases])
    served.weights["samples"][1, 2, 1] = 0.75  # its product is 1.5 then
    found = served.deviation(users[:1], items[:1])
    assert found.tolist() == pytest.approx([(0.5**2 * 0.5 + biases[0]) ** 0.5])
    assert sampled_products(served.weights["samples"], torch.tensor([0]), torch.tensor([2])).tolist() == [[0.5], [1.5]]


@pytest.mark.integration
def test_lists_add_kappa_deviations(spark, tmp_path):
    path = model_of(tmp_path)
    users = spark.createDataFrame([(0,)], "user_idx int")
    served, both = Served(path), (np.array([0, 0]), np.array([0, 1]))
    for kappa in (0.0, 2.0):
        scorer = RatingScorer(path, np.array([0, 1]), 2, kappa=kappa)
        lists = scorer.best(users, Wanted(("user_idx",), 2, TopKConfig())).orderBy("item_idx").collect()
        expected = served.predict(*both) + kappa * served.deviation(*both)
        assert [row["score"] for row in lists] == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["ratings.posterior=sgld"], r"set ratings.network=mf ratings.penalty=priors"),
        (["ratings.kappa=1"], "predictions have no deviation"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        load_config(None, settings)
