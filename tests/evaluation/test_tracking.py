"""Faces keep their numbers from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from fer.core import labels
from fer.data.detection import Box
from fer.evaluation.prediction import Prediction
from fer.evaluation.tracking import GAP, Appearance, Tracker


def box(x: int, y: int = 0, side: int = 20) -> Box:
    return x, y, side, side


def test_faces_that_move_keep_their_numbers_in_whatever_order_they_are_found() -> None:
    tracker = Tracker()
    for step in range(10):
        boxes = [box(4 * step), box(100 - 4 * step, 50)]
        expected = [1, 2]
        if step % 2:
            boxes, expected = boxes[::-1], expected[::-1]
        assert tracker.number(boxes, step / 30) == expected


def test_each_face_follows_the_one_that_it_overlaps_most() -> None:
    tracker = Tracker()
    assert tracker.number([box(0), box(30)], 0.0) == [1, 2]
    assert tracker.number([box(6), box(2), box(27)], 0.1) == [3, 1, 2]


def test_a_face_that_jumps_is_a_new_one() -> None:
    tracker = Tracker()
    assert tracker.number([box(0)], 0.0) == [1]
    assert tracker.number([box(60)], 0.1) == [2]


@pytest.mark.parametrize(("away", "number"), [(0.9 * GAP, 1), (1.1 * GAP, 2)])
def test_a_face_that_comes_back_after_the_gap_is_a_new_one(away: float, number: int) -> None:
    tracker = Tracker()
    tracker.number([box(0)], 5.0)
    for seconds in np.arange(0.1, away, 0.1):
        assert tracker.number([], 5 + seconds) == []
    assert tracker.number([box(0)], 5 + away) == [number]


def test_rarely_looked_at_frames_are_no_gap() -> None:
    tracker = Tracker()
    assert [tracker.number([box(2 * i)], 3 * GAP * i) for i in range(4)] == [[1]] * 4


def test_an_appearance_counts_emotions_and_breaks_its_curve_where_it_is_away() -> None:
    face = Appearance(0.5)
    for looked, emotion in ((3, "happy"), (4, "happy"), (6, "sad")):
        likely = {e: 0.9 if e == emotion else 0.1 / 6 for e in labels.EMOTIONS}
        face.add(looked, looked / 10, Prediction(emotion, likely), keep=True)
    assert (face.first, face.last, face.frames) == (0.5, 0.6, 3)
    assert face.shares == [("happy", pytest.approx(2 / 3)), ("sad", pytest.approx(1 / 3))]
    assert face.curve.shape == (4, 8) and np.isnan(face.curve[2]).all()
    np.testing.assert_allclose(face.curve[[0, 1, 3], 0], [0.3, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(face.curve[3, 1 + labels.INDEX["sad"]], 0.9, rtol=1e-6)
