"""Vectors of items from their texts, against plain numpy, and ready ones."""

import math
from collections import Counter

import numpy as np
import pytest

from sparkrec.errors import UserError
from sparkrec.prepare.text_vectors import item_words, ready_vectors, text_vectors
from sparkrec.settings.sections import TextConfig

TFIDF = TextConfig(method="tfidf", dim=2, min_df=1)


def corpus(spark, texts):
    """Items i0, i1, … with a title and a description each, numbered 10, 11, …"""
    rows = [(f"i{n}", *(t if isinstance(t, tuple) else (t, None))) for n, t in enumerate(texts)]
    items = spark.createDataFrame(rows, "id string, title string, description string")
    index = spark.createDataFrame([(f"i{n}", 10 + n) for n in range(len(texts))], "id string, idx int")
    return items, index


def found(vectors):
    """(name, item_idx) → vector."""
    return {(r["name"], r["item_idx"]): np.array(r["vector"]) for r in vectors.collect()}


def vectors_of(spark, texts, config, columns=("title",)):
    return {i - 10: v for (_, i), v in found(text_vectors(*corpus(spark, texts), columns, config)).items()}


def test_words_are_lower_case_runs_of_letters_and_digits(spark):
    items, index = corpus(spark, [("RED-Lamp, 60W!", "für Öl"), (None, "x"), ("...", None), (None, None)])
    words = {r["item_idx"]: r["words"] for r in item_words(items, index, ["title", "description"]).collect()}
    assert words == {10: ["red", "lamp", "60w", "für", "öl"], 11: ["x"]}


@pytest.mark.integration
def test_tfidf_by_hand(spark):
    """Rows (1,1,0,0)/√2 twice and (0,0,1,1)/√2 once: singular values √2 and 1, their vectors the rows themselves."""
    texts = ["red lamp", "Lamp, red", "blue chair", "", None]
    vectors = vectors_of(spark, texts, TFIDF)
    assert {i: v.tolist() for i, v in vectors.items()} == {
        0: pytest.approx([1, 0], abs=1e-6), 1: pytest.approx([1, 0], abs=1e-6), 2: pytest.approx([0, 1], abs=1e-6),
    }  # fmt: skip


@pytest.mark.integration
def test_what_no_dimension_shows_has_no_vector(spark):
    """With one dimension only the lamps are described: the chair's vector is 0, not rounding errors of length 1."""
    vectors = vectors_of(spark, ["red lamp", "red lamp", "blue chair"], TextConfig(method="tfidf", dim=1, min_df=1))
    assert vectors.keys() == {0, 1}


def reference(texts, dim, min_df):
    """Cosines of the items' vectors, by a dense SVD."""
    bags = [Counter(t.split()) for t in texts]
    df = Counter(w for bag in bags for w in bag)
    words = [w for w in sorted(df) if df[w] >= min_df]
    rows = np.array([[bag[w] * math.log((len(texts) + 1) / (df[w] + 1)) for w in words] for bag in bags])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    right = np.linalg.svd(rows)[2][:dim].T
    vectors = rows @ right
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.mark.integration
def test_tfidf_is_that_of_a_dense_svd_however_the_rows_lie(spark):
    """Four topics of different size, with words of their own."""
    rng = np.random.default_rng(3)
    topics = rng.choice(4, 80, p=[0.4, 0.3, 0.2, 0.1])
    texts = [" ".join(f"t{topic}w{int(x)}" for x in rng.zipf(1.5, 12) % 60) for topic in topics]
    config = TextConfig(method="tfidf", dim=4, min_df=1)
    items, index = corpus(spark, texts)
    first = found(text_vectors(items, index, ["title"], config))
    second = found(text_vectors(items.repartition(5, "title"), index, ["title"], config))
    ours, again = (np.array([v["text_tfidf", 10 + i] for i in range(len(texts))]) for v in (first, second))
    assert np.allclose(ours @ ours.T, reference(texts, 4, 1), atol=1e-4)
    assert ours.tolist() == again.tolist()


@pytest.mark.integration
def test_the_vocabulary_is_bounded_and_rare_words_do_not_count(spark):
    texts = ["a b", "a b", "a c", "b rare"]
    one = vectors_of(spark, texts, TextConfig(method="tfidf", dim=1, min_df=2, vocabulary=1))
    assert one.keys() == {0, 1, 2}  # a and b are in three items each: a comes first
    with pytest.raises(UserError, match="no word"):
        vectors_of(spark, texts, TextConfig(method="tfidf", min_df=5))


@pytest.mark.integration
def test_word2vec_is_the_mean_of_the_words_and_the_same_in_each_run(spark):
    texts = [("red lamp", "a"), ("lamp", "red a"), ("blue chair", "a"), ("rare", None), ("red", None)] * 5
    texts[3] = ("unique", None)
    config = TextConfig(method="word2vec", dim=3, min_df=2, seed=5)
    items, index = corpus(spark, texts)
    first = found(text_vectors(items, index, ["title", "description"], config))
    second = found(text_vectors(items.repartition(3, "title"), index, ["title", "description"], config))
    assert first.keys() == second.keys() == {("text_word2vec", 10 + i) for i in range(25) if i != 3}
    for key, vector in first.items():
        assert vector.tolist() == second[key].tolist()
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert np.allclose(first["text_word2vec", 10], first["text_word2vec", 11])  # the same words in another order
    assert not np.allclose(first["text_word2vec", 10], first["text_word2vec", 12], atol=1e-3)


def test_ready_vectors(spark):
    rows = [("a", [3.0, 4.0], None), ("b", None, [1.0]), ("c", [0.0, 0.0], [-2.0]), ("stranger", [1.0, 1.0], None)]
    items = spark.createDataFrame(rows, "id string, image array<float>, sound array<float>")
    index = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2), ("new", 3)], "id string, idx int")
    vectors = {key: v.tolist() for key, v in found(ready_vectors(items, index)).items()}
    assert vectors == {("image", 0): pytest.approx([0.6, 0.8]), ("sound", 1): [1.0], ("sound", 2): [-1.0]}
    assert ready_vectors(items.select("id"), index) is None


@pytest.mark.parametrize("wrong", [[1.0], [1.0, None], [1.0, float("nan")], [1.0, float("inf")]])
def test_ready_vectors_that_cannot_be_used_are_refused(spark, wrong):
    items = spark.createDataFrame([("a", [3.0, 4.0]), ("b", wrong)], "id string, image array<float>")
    index = spark.createDataFrame([("a", 0), ("b", 1)], "id string, idx int")
    with pytest.raises(UserError, match="one width and finite"):
        ready_vectors(items, index)


def test_a_column_that_items_lack_is_named(spark):
    items, index = corpus(spark, ["a b"])
    for columns in (["title", "summary"], []):
        with pytest.raises(UserError, match="no such text column"):
            text_vectors(items, index, columns, TFIDF)
