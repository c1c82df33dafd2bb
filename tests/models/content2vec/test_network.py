"""content2vec: the cosine of two vectors is the weighted sum of the modalities' similarities and the residual's."""

import pytest
import torch
import torch.nn.functional as F

from sparkrec.models.content2vec.network import Content2VecShape, new_content2vec

pytestmark = pytest.mark.usefixtures("one_thread", "no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def unit(n, width, seed):
    return F.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.integration
def test_the_cosine_is_the_weighted_sum_of_the_similarities():
    model = new_content2vec(Content2VecShape((3, 2), 4, 0), seed=1)
    model.log_weights.copy_(torch.tensor([2.0, 0.5, 1.0]).log())
    text, image, behaviour = unit(5, 3, 1), unit(5, 2, 2), unit(5, 4, 3)
    found = model([text, image], behaviour)
    assert found.shape == (5, 9)
    expected = (2 * text @ text.T + 0.5 * image @ image.T + behaviour @ behaviour.T) / 3.5
    torch.testing.assert_close(found @ found.T, expected)


def test_the_residual_adds_its_own_similarity():
    plain = new_content2vec(Content2VecShape((3,), 4, 0), seed=1)
    model = new_content2vec(Content2VecShape((3,), 4, 6, (5,)), seed=1)
    text, behaviour = unit(5, 3, 1), unit(5, 4, 3)
    there = torch.ones(5, 2)
    residual = 0.1 * model.residual(torch.cat([text, behaviour, there], 1))
    sums = 2 * plain([text], behaviour) @ plain([text], behaviour).T + residual @ residual.T
    lengths = sums.diagonal().sqrt()
    found = model([text], behaviour)
    torch.testing.assert_close(found @ found.T, sums / lengths[:, None] / lengths[None, :])
    assert found.shape == (5, model.shape.width) == (5, 13)
    assert residual.abs().max() > 0


def test_both_sides_of_the_score_give_scale_times_cosine_plus_bias():
    model = new_content2vec(Content2VecShape((3,), 4, 0), seed=1)
    vectors = model([unit(5, 3, 1)], unit(5, 4, 3))
    left, right = model.sides(vectors)
    torch.testing.assert_close(left @ right.T, 5.0 * vectors @ vectors.T - 1.0)


def test_an_item_without_prod2vec_is_placed_by_its_content_and_one_without_anything_is_not():
    model = new_content2vec(Content2VecShape((3, 2), 4, 6, (5,)), seed=1)
    text, image, behaviour = unit(4, 3, 1), unit(4, 2, 2), unit(4, 4, 3)
    behaviour[1:] = 0
    image[2] = 0
    text[3], image[3] = 0, 0
    found = model([text, image], behaviour)
    assert found.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 0])
    stand_in = found[1, 5:9]
    assert stand_in.norm() == pytest.approx(float(found[1, :3].norm()), rel=1e-5)  # it weighs as much as a real one
    expected = F.normalize(model.stand_in(torch.cat([text[1], image[1], torch.ones(2)])), dim=0)
    torch.testing.assert_close(F.normalize(stand_in, dim=0), expected)
    assert found[2, 3:5].abs().sum() == 0  # no image


def test_an_item_with_nothing_but_prod2vec_keeps_it():
    model = new_content2vec(Content2VecShape((3,), 4, 0), seed=1)
    behaviour = unit(2, 4, 3)
    found = model([torch.zeros(2, 3)], behaviour)
    torch.testing.assert_close(found, torch.cat([torch.zeros(2, 3), behaviour], 1))


def test_weights_are_the_same_for_a_seed():
    shape = Content2VecShape((3,), 4, 6, (5,))
    state = torch.random.get_rng_state()
    one, same, other = (dict(new_content2vec(shape, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(torch.random.get_rng_state(), state)
