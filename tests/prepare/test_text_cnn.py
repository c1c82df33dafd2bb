"""Vectors of texts from a CNN that tells categories: the network by hand, what it learns, and what it cannot."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparkrec.errors import UserError
from sparkrec.prepare.text_cnn import TextCnn, encode, train
from sparkrec.prepare.text_vectors import category_of, text_vectors
from sparkrec.settings.formats import Feature
from sparkrec.settings.sections import TextConfig

CONFIG = TextConfig(method="cnn", dim=6, min_df=1, words=6, word_dim=8, epochs=60)
GENRE = Feature("genre", "multi")


def test_texts_are_the_first_known_words_as_numbers():
    words = pa.array([["red", "big", "red", "lamp"], [], ["unknown"]])
    assert encode(words, {"red": 1, "lamp": 2}, 3).tolist() == [[1, 1, 2], [0, 0, 0], [0, 0, 0]]


def test_a_vector_is_the_largest_value_of_each_filter_over_the_text():
    config = TextConfig(dim=3, words=5, word_dim=2)
    network = TextCnn(3, config, 2)
    words = torch.tensor([[1, 2, 3, 0, 0]])
    embedded = network.words.weight[words[0]].detach().numpy()
    assert not embedded[3:].any()
    for n, (one, width) in enumerate(zip(network.filters, (3, 4, 5), strict=True)):
        weight, bias = one.weight[0].detach().numpy(), one.bias.item()
        windows = [(weight.T * embedded[at : at + width]).sum() + bias for at in range(5 - width + 1)]
        assert network.vectors(words)[0, n].item() == pytest.approx(max(0.0, *windows, 0.0), abs=1e-6)


@pytest.mark.integration
def test_it_learns_what_no_bag_of_words_tells():
    """Categories are of the words' order: a bag of words is the same for both."""
    texts = np.array([[1, 2, 3, 0, 0, 0], [3, 2, 1, 0, 0, 0]] * 40)
    labels = np.array([0, 1] * 40)
    network, loss, _ = train(texts, labels, 3, 2, CONFIG)
    again = train(texts, labels, 3, 2, CONFIG)
    told = network.last(network.vectors(torch.from_numpy(texts[:2]))).argmax(1).tolist()
    assert told == [0, 1]
    assert loss == again[1]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again[0].parameters(), strict=True))
    assert not network.words.weight[0].any()


@pytest.fixture(scope="module")
def catalogue(spark):
    """Lamps and chairs, each with another word; one without a category, one without a text, one of unknown words."""
    kinds = {"lamp": "light lamp shines", "chair": "wooden chair stands"}
    rows = [(f"i{n}", f"{kinds[kind]} w{n % 7}", f"{kind}|zz") for n, kind in enumerate(["lamp", "chair"] * 20)]
    rows += [("bare", "light lamp shines", None), ("mute", None, "lamp"), ("foreign", "qqq", "chair")]
    items = spark.createDataFrame(rows, "id string, title string, genre string")
    index = spark.createDataFrame([(row[0], n) for n, row in enumerate(rows)], "id string, idx int")
    return items, index, [row[0] for row in rows]


@pytest.mark.integration
def test_texts_of_a_category_lie_together_also_one_that_has_none(catalogue):
    items, index, ids = catalogue
    config = TextConfig(method="cnn", dim=6, min_df=2, words=6, word_dim=8, epochs=30)
    rows = text_vectors(items, index, ["title"], config, GENRE).collect()
    found = {ids[row["item_idx"]]: np.array(row["vector"]) for row in rows}
    assert {row["name"] for row in rows} == {"text_cnn"}
    assert {len(vector) for vector in found.values()} == {6}
    assert all(np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5) for vector in found.values())
    assert set(ids) - set(found) == {"mute", "foreign"}
    numbered = [(int(name[1:]) % 2, vector) for name, vector in found.items() if name[1:].isdigit()]
    lamps, chairs = (np.mean([vector for kind, vector in numbered if kind == k], 0) for k in (0, 1))
    assert found["bare"] @ lamps > 0.9 > 0.7 > found["bare"] @ chairs


@pytest.mark.integration
def test_a_catalogue_without_categories_is_one_line(catalogue):
    items, index, _ = catalogue
    assert category_of((Feature("price", "bucket"), GENRE), "") == GENRE
    assert category_of((Feature("price", "bucket"), GENRE), "price").name == "price"
    with pytest.raises(UserError, match="no category that texts could be learnt by"):
        category_of((Feature("price", "bucket"),), "")
    with pytest.raises(UserError, match=r"prepare\.text\.category=colour "):
        category_of((GENRE,), "colour")
    with pytest.raises(UserError, match="items with a text are of 1 categories"):
        text_vectors(items.where("genre like 'lamp%'"), index, ["title"], CONFIG, GENRE)
