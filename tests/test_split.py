"""A stratified split: sizes, proportions and reproducibility that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.base import stratified_split


def chosen_counts(counts: list[int], size: int, seed: int = 0) -> list[int]:
    labels = np.repeat(np.arange(len(counts)), counts)
    _, chosen = stratified_split(labels, size, seed)
    return np.bincount(labels[chosen], minlength=len(counts)).tolist()


def test_even_classes_give_even_parts() -> None:
    assert chosen_counts([100, 100, 100], 30) == [10, 10, 10]


def test_largest_remainders_get_the_rows_left_over() -> None:
    # shares of 10 rows: 5.0, 2.6, 2.4 -> 5, 2, 2 and one left, for the class with remainder 0.6
    assert chosen_counts([50, 26, 24], 10) == [5, 3, 2]


def test_equal_remainders_go_to_the_smaller_label() -> None:
    assert chosen_counts([10, 10, 10, 10], 6) == [2, 2, 1, 1]


def test_a_rare_class_stands_on_both_sides() -> None:
    assert chosen_counts([1000, 2], 10) == [9, 1]  # its share is 0.02
    assert chosen_counts([1000, 2], 990) == [989, 1]  # its share is 1.98


def test_a_class_of_one_row_stands_where_its_share_falls() -> None:
    assert chosen_counts([1000, 1], 10) == [10, 0]


def test_fewer_rows_than_classes_are_still_given() -> None:
    assert chosen_counts([10, 10, 10], 2) == [1, 1, 0]
    assert chosen_counts([2, 2, 2], 5) == [2, 2, 1]


def test_none_and_all() -> None:
    labels = np.array([0, 1, 1, 0])
    for size, expected in ((0, []), (4, [0, 1, 2, 3])):
        rest, chosen = stratified_split(labels, size, 0)
        assert chosen.tolist() == expected
        assert len(rest) == 4 - size


def test_a_size_beyond_the_rows_is_refused() -> None:
    for size in (-1, 5):
        with pytest.raises(ValueError, match=rf"cannot choose {size} of 4 rows; choose 0\.\.4"):
            stratified_split(np.array([0, 1, 1, 0]), size, 0)


def test_the_seed_decides_which_rows_and_global_random_state_does_not() -> None:
    labels = np.repeat(np.arange(3), 100)
    np.random.seed(1)
    _, first = stratified_split(labels, 60, 7)
    before = np.random.get_state()[1].tolist()
    np.random.seed(2)
    _, again = stratified_split(labels, 60, 7)
    _, other = stratified_split(labels, 60, 8)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    np.random.seed(1)
    stratified_split(labels, 60, 9)
    assert np.random.get_state()[1].tolist() == before


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_split_is_a_sorted_partition_near_its_shares(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.random.Generator(np.random.Philox(seed)).permutation(np.repeat(np.arange(len(counts)), counts))
    size = int(fraction * len(labels))
    rest, chosen = stratified_split(labels, size, seed)
    assert rest.dtype == chosen.dtype == np.int64
    assert np.sort(np.concatenate([rest, chosen])).tolist() == list(range(len(labels)))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == size
    taken = np.bincount(labels[chosen], minlength=len(counts))
    many = np.array(counts) >= 2
    if many.sum() <= size <= len(labels) - many.sum():
        assert (taken[many] >= 1).all()
        assert (np.array(counts)[many] - taken[many] >= 1).all()
