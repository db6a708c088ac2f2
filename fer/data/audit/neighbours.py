"""Which perceptual hashes are near each other: exactly, and in nearly linear time.

The bits are dealt out to three parts: two hashes that differ in at most 16 bits differ in at most
4, 5 or 5 bits of one part (multi-index hashing: Norouzi, Punjani and Fleet, CVPR 2012, arXiv
1307.2982, propositions 1 and 2). Hashes are then sorted by selections of the part's bits, made so
that one of them leaves out whichever bits differ (CoveringLSH: Pagh, 2018, arXiv 1507.03225,
section 3). That takes 31 + 63 + 63 selections of about 21 bits, and few of a million pictures
agree in one of them by chance.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np

PARTS = 3
AT_ONCE = 1 << 20
"""Pairs compared at once, of about 100 bytes each."""
CROWD = 1 << 23
"""Hashes that agree and make more pairs than this are searched by their other bits instead."""
SAMPLE = 1 << 16
"""Hashes sampled to see which bits vary."""
MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
"""Odd numbers whose products fold the 128 bits of a hash into 64; a collision only costs time."""


def group_near(hashes: np.ndarray, most: int) -> np.ndarray:
    """Groups of hashes, linked by pairs that differ in few bits.

    Args:
        hashes: ``(N, 16)`` uint8.
        most: bits in which a pair may differ, 3 or more.

    Returns:
        ``(N,)`` int64: the first row of each row's group.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)  # (N, 2)
    order = np.lexsort(words.T)
    new = np.ones(len(order), bool)
    new[1:] = (words[order[1:]] != words[order[:-1]]).any(axis=1)
    first = order[new]  # of equal ones, however many, the first is compared
    group = np.arange(len(words))
    group[order] = first[np.cumsum(new) - 1]
    if len(first) > 1:
        _search(words, np.sort(first), most, group)
    return group


def _search(words: np.ndarray, rows: np.ndarray, most: int, group: np.ndarray) -> None:
    """Merge in ``group`` those of ``rows`` that are near each other."""
    left, right = words[rows].T.copy()
    keys, other = np.empty_like(left), np.empty_like(left)
    places = np.arange(len(rows), dtype=np.uint64)
    low = np.uint64((1 << len(rows).bit_length()) - 1)
    for mask in _selections(words[rows[:: 1 + len(rows) // SAMPLE]], most):
        np.multiply(np.bitwise_and(left, mask[0], out=keys), MIXERS[0], out=keys)
        np.multiply(np.bitwise_and(right, mask[1], out=other), MIXERS[1], out=other)
        keys += other
        keys &= ~low
        keys |= places  # which hash it is travels in the lowest bits
        keys.sort()
        agree = np.append(False, np.bitwise_xor(keys[1:], keys[:-1], out=other[1:]) <= low)
        # Neighbours first: a cluster is one group then, before its other pairs are counted.
        second = np.flatnonzero(agree)
        one, two = (rows[keys[at] & low] for at in (second - 1, second))
        _unite(words, one, two, most, group)
        third = second[agree[second - 1]]
        longer = np.zeros(len(rows), bool)
        longer[third] = longer[third - 1] = longer[third - 2] = True
        members = rows[keys[longer] & low]
        run = np.cumsum(~agree[longer])
        for crowd in _compare_runs(words, members, run, len(rows) // 2, most, group):
            _search(words, crowd, most, group)


def _compare_runs(
    words: np.ndarray,
    members: np.ndarray,
    run: np.ndarray,
    large: int,
    most: int,
    group: np.ndarray,
) -> Iterator[np.ndarray]:
    """Compare rows of the same run (``run`` ascends) that are not in one group yet.

    Yields:
        The rows of each run of up to ``large`` rows that has too many pairs to compare.
    """
    order = np.lexsort((group[members], run))
    members = members[order]
    changes = np.diff(run, prepend=0) | np.diff(group[members], prepend=0)
    block = np.cumsum(changes != 0)
    # The partners of a row are those of its run that come after its group.
    start = np.searchsorted(block, block, "right")
    count = np.searchsorted(run, run, "right") - start
    for number in np.flatnonzero(np.bincount(run, count) > CROWD):
        crowd = run == number
        if crowd.sum() <= large:
            count[crowd] = 0
            yield members[crowd]
    for one, two in _pairs(start, count):
        _unite(words, members[one], members[two], most, group)


def _pairs(start: np.ndarray, count: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pair each position with the ``count`` from ``start``, about :data:`AT_ONCE` at a time."""
    ends = np.cumsum(count)
    cuts = np.searchsorted(ends, np.arange(AT_ONCE, count.sum(), AT_ONCE))
    for a, b in itertools.pairwise([0, *cuts.tolist(), len(count)]):
        one = np.repeat(np.arange(a, b), count[a:b])
        first = np.repeat(start[a:b] + count[a:b] - np.cumsum(count[a:b]), count[a:b])
        yield one, first + np.arange(len(one))


def _selections(sample: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Masks ``(2,)`` uint64 of which two hashes that differ in up to ``most`` bits agree in one.

    In a part of which d - 1 bits may differ, each bit gets a number of d binary digits, not 0,
    and each such number v a mask: the bits whose number shares an odd count of digits with v. For
    any d - 1 numbers there is a v that shares an even count with all of them.
    """
    share = np.unpackbits(sample.view(np.uint8), axis=1).mean(axis=0)
    order = np.argsort(share * (share - 1), kind="stable")  # those that tell most apart first
    for part in range(PARTS):
        bits = order[part::PARTS]
        numbers = 2 ** ((most + 1 + part) // PARTS) - 1
        # In steps of four: each mask then has 18 bits or more where most is 16.
        own = 1 + np.arange(len(bits)) * 4 % numbers
        for v in range(1, numbers + 1):
            mask = np.zeros(len(order), bool)
            mask[bits] = _ones()[v & own] % 2
            yield np.packbits(mask).view(np.uint64)


def _unite(
    words: np.ndarray, one: np.ndarray, two: np.ndarray, most: int, group: np.ndarray
) -> None:
    """Merge the groups of each pair that is near, under the lower row."""
    differing = np.zeros(len(one), np.uint32)
    for half in words.T:  # the first tells nearly all that are far apart
        ones = _ones()[(half[one] ^ half[two]).view(np.uint16)].view(np.uint32)
        differing += ones * np.uint32(0x01010101) >> np.uint32(24)  # the sum of the four bytes
        near = differing <= most
        one, two, differing = one[near], two[near], differing[near]
    while (apart := group[one] != group[two]).any():
        one, two = one[apart], two[apart]
        a, b = group[one], group[two]
        np.minimum.at(group, np.maximum(a, b), np.minimum(a, b))
        while (group[group] != group).any():
            group[:] = group[group]


@functools.cache
def _ones() -> np.ndarray:
    """``(65536,)`` uint8: how many bits are set in each 16-bit number."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.unpackbits(numbers, axis=1).sum(axis=1, dtype=np.uint8)
