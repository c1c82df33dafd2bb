import math

import numpy as np
import pytest

from sparkrec.errors import InvariantError
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.retrieval.similar import nearest


def test_neighbours_are_the_smallest_angles_and_no_item_is_its_own(spark):
    vectors = np.array([[2.0, 0.0], [3.0, 3.0], [0.0, 5.0], [0.0, 0.0], [-1.0, 0.0], [1.0, 0.1]], dtype=np.float32)
    items = ItemMatrix(vectors, np.full(6, 9.0, dtype=np.float32), np.array([True, True, True, True, True, False]))
    found = {}
    for row in nearest(spark, items, k=2).orderBy("query_idx", "rank").collect():
        found.setdefault(row["query_idx"], []).append((row["rank"], row["item_idx"], row["score"]))
    half = math.sqrt(0.5)
    assert found == {
        0: [(1, 1, pytest.approx(half)), (2, 2, pytest.approx(0.0, abs=1e-6))],
        1: [(1, 0, pytest.approx(half)), (2, 2, pytest.approx(half))],  # equal angles: the smaller number first
        2: [(1, 1, pytest.approx(half)), (2, 0, pytest.approx(0.0, abs=1e-6))],
        4: [(1, 2, pytest.approx(0.0, abs=1e-6)), (2, 1, pytest.approx(-half))],
    }  # the zero vector and the item that may not be shown are nowhere


@pytest.mark.integration
def test_vectors_held_against_others_are_ranked_by_the_inner_product(spark):
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    others = np.array([[9.0, 0.0], [3.0, 1.0], [2.0, -5.0], [4.0, 0.0]], dtype=np.float32)
    items = ItemMatrix(rows, None, np.array([True, True, True, False]))
    among = ItemMatrix(others, None, np.array([True, True, True, True]))

    def lists(**excluded):
        found = nearest(spark, items, k=2, among=among, **excluded).orderBy("query_idx", "rank").collect()
        return [(r["query_idx"], r["item_idx"], r["score"]) for r in found]

    # 0 itself has the largest product with 0, and is not on its list; 3 has no vector to ask with, and is on lists.
    assert lists() == [(0, 3, 4.0), (0, 1, 3.0), (1, 0, 0.0), (1, 3, 0.0), (2, 0, 9.0), (2, 1, 4.0)]
    assert lists(only=np.array([3, 1])) == [(1, 0, 0.0), (1, 3, 0.0)]
    assert lists(excluded=np.array([3, 0])) == [(0, 1, 3.0), (0, 2, 2.0), (1, 2, -10.0), (2, 1, 4.0)]
    with pytest.raises(InvariantError, match=r"\(4, 2\), to be held against \(3, 2\)"):
        nearest(spark, items, k=2, among=ItemMatrix(others[:3], None, None))
