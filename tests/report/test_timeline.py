"""The timeline of a video says what was seen, and what it leaves out."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex

from fer.core import labels
from fer.evaluation.prediction import Prediction
from fer.evaluation.tracking import MOST, Appearance
from fer.report.figures import EMOTION_COLORS, to_image
from fer.report.timeline import timeline


def appearance(frames: int, emotion: str = "happy") -> Appearance:
    face = Appearance(0.0)
    likely = {e: 0.7 if e == emotion else 0.05 for e in labels.EMOTIONS}
    for looked in range(frames):
        face.add(looked + (looked > 2), looked / 10, Prediction(emotion, likely), keep=True)
    return face


def texts(figure: object) -> str:
    return " ".join(text.get_text() for text in figure.texts)  # type: ignore[attr-defined]


def test_a_panel_for_each_face_has_a_curve_for_each_emotion_in_its_colour() -> None:
    figure = timeline({1: appearance(9), 2: appearance(4, "sad")}, "clip.mp4", 2.5)
    first, second = figure.axes
    assert first.get_title(loc="left") == "face 1: 9 frames, mostly happy (100.0 %)"
    assert second.get_title(loc="left") == "face 2: 4 frames, mostly sad (100.0 %)"
    for line, emotion in zip(first.lines, labels.EMOTIONS, strict=True):
        assert to_hex(str(line.get_color())) == EMOTION_COLORS[emotion].lower()
        values = np.asarray(line.get_ydata(), float)
        assert np.isnan(values[3]) and np.isfinite(np.delete(values, 3)).all()
        assert np.nanmax(values) == np.float32(70 if emotion == "happy" else 5)
    assert "clip.mp4" in texts(figure) and "not smoothed" in texts(figure)
    assert first.get_xlim() == (0, 2.5)
    assert "Shown are" not in texts(figure)
    assert to_image(figure).std() > 5


def test_the_faces_that_stay_longest_are_shown_and_the_others_counted() -> None:
    faces = {number: appearance(20 - number if number % 2 else 2) for number in range(1, 10)}
    figure = timeline(faces, "clip.mp4", 2.5, every=5)
    titles = [axis.get_title(loc="left").split(":")[0] for axis in figure.axes]
    assert titles == [f"face {number}" for number in (1, 2, 3, 5, 7, 9)] and len(titles) == MOST
    assert "left out: 3 faces" in texts(figure) and "one of 5 frames" in texts(figure)


def test_no_face_is_said() -> None:
    assert "No face was found." in texts(timeline({}, "$x$.mp4", 2.5))
