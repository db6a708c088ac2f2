from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer.data.audit import neighbours
from fer.data.audit.neighbours import group_near


def compare_all(hashes: np.ndarray, most: int) -> np.ndarray:
    """What :func:`group_near` promises, from the distance of every pair."""
    bits = np.unpackbits(hashes, axis=1).astype(np.int64)
    near = (bits[:, None] != bits[None]).sum(axis=2) <= most
    group = np.arange(len(hashes))
    while True:  # each takes the lowest number among those that are near
        lower = np.where(near, group, len(group)).min(axis=1, initial=len(group))
        if (lower == group).all():
            return group
        group = lower


def scatter(centre: np.ndarray, count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """``(count, 16)`` hashes that differ from ``centre`` in up to ``most`` bits."""
    bits = np.tile(np.unpackbits(centre), (count, 1))
    for row in bits:
        row[rng.choice(128, rng.integers(most + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1)


@st.composite
def hash_tables(draw: st.DrawFn) -> np.ndarray:
    """Hashes that are far apart, copies, clouds of several widths and blanks, in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kept = draw(st.sampled_from([255, 255, 0b10001, 1]))  # few bits may vary at all
    clouds = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 1, 8, 12, 20, 40])))
    parts = [np.zeros((draw(st.integers(0, 20)), 16), np.uint8)]
    for count, most in draw(clouds):
        centre = rng.integers(0, 256, 16, dtype=np.uint8) & np.uint8(kept)
        parts.append(scatter(centre, count, most, rng))
    hashes = np.concatenate(parts)
    return hashes[rng.permutation(len(hashes))]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(hash_tables(), st.sampled_from([3, 5, 16, 20]), st.sampled_from([8, 1 << 20]))
def test_groups_are_those_of_comparing_every_pair(
    hashes: np.ndarray, most: int, limit: int
) -> None:
    # Small limits: pairs are compared in many parts, and crowds searched by their other bits.
    with patch.multiple(neighbours, AT_ONCE=limit, CROWD=limit, SAMPLE=limit):
        found = group_near(hashes, most)
    np.testing.assert_array_equal(found, compare_all(hashes, most))


@pytest.mark.parametrize("most", [4, 5, 8, 15, 16, 17])
def test_a_pair_is_found_wherever_its_differing_bits_lie(most: int) -> None:
    rng = np.random.default_rng(most)
    for _ in range(20):
        hashes = rng.integers(0, 256, (2, 16), dtype=np.uint8)
        bits = np.unpackbits(hashes[0])
        bits[rng.choice(128, most, replace=False)] ^= 1
        hashes[1] = np.packbits(bits)
        assert group_near(hashes, most).tolist() == [0, 0]
        assert group_near(hashes, most - 1).tolist() == [0, 1]


@pytest.mark.parametrize("most", [4, 9, 16])
def test_hashes_that_differ_in_few_bits_agree_in_a_selection(most: int) -> None:
    rng = np.random.default_rng(0)
    sample = rng.integers(0, 2**63, (100, 2)).astype(np.uint64)
    masks = np.array(list(neighbours._selections(sample, most)))
    for _ in range(2000):
        bits = np.zeros(128, bool)
        bits[rng.choice(128, most, replace=False)] = True
        differing = np.packbits(bits).view(np.uint64)
        assert ((masks & differing) == 0).all(axis=1).any()


def test_no_hash_and_one_hash_are_groups_of_their_own() -> None:
    assert group_near(np.zeros((0, 16), np.uint8), 16).tolist() == []
    assert group_near(np.zeros((1, 16), np.uint8), 16).tolist() == [0]


@pytest.mark.parametrize("cloud", [8, 24])
def test_a_crowd_is_not_compared_pair_by_pair(cloud: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (6000, 16), dtype=np.uint8)
    hashes[:2000] = scatter(hashes[0], 2000, cloud, rng)  # of 24: many are not near each other
    hashes[2000:4000] = hashes[2000]
    compared = 0
    unite = neighbours._unite

    def count(words: np.ndarray, one: np.ndarray, *rest: Any) -> None:
        nonlocal compared
        compared += len(one)
        unite(words, one, *rest)

    with patch.object(neighbours, "_unite", count):
        group = group_near(hashes, 16)
    assert compared < 6000 * 6000 / 2 / 5
    np.testing.assert_array_equal(group[2000:4000], 2000)
    assert (group[:2000] == 0).mean() > (0.99 if cloud == 8 else 0.5)
