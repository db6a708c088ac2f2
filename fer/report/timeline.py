"""The timeline of a video: what a network says of each face over time."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from fer.core import labels
from fer.core.words import how_many, percent
from fer.evaluation.tracking import MOST, Appearance, longest
from fer.report.figures import EMOTION_COLORS, Look, legend_below, panels, style


def timeline(faces: Mapping[int, Appearance], name: str, seconds: float, every: int = 1) -> Figure:
    """Plot the probabilities of the faces that stay longest, a panel for each.

    Args:
        faces: by their numbers, with their curves.
        name: of the video.
        seconds: its length.
        every: of so many frames, one was looked at.
    """
    numbers = longest(faces)
    subtitle = "The network's probabilities, a point for " + (
        "each frame" if every == 1 else f"one of {every} frames"
    )
    subtitle += ", not smoothed. A line breaks where its face was not found."
    if len(faces) > MOST:
        left_out = how_many(len(faces) - MOST, "face")
        subtitle += f" Shown are the {MOST} faces that stay longest; left out: {left_out}."
    if not faces:
        subtitle = "No face was found."
    with style():
        title = f"Emotions over time: {name}"
        figure, axes = panels(max(1, len(numbers)), 1, 8.6, 1.75, title, subtitle)
        for axis, number in zip(axes, numbers, strict=False):
            face = faces[number]
            curve = face.curve
            for column, emotion in enumerate(labels.EMOTIONS, start=1):
                # Dots: a frame between two without the face is a point, and no line.
                look: Look = {"color": EMOTION_COLORS[emotion], "lw": 1.2, "marker": ".", "ms": 2.5}
                axis.plot(curve[:, 0], 100 * curve[:, column], label=emotion, **look)
            emotion, share = face.shares[0]
            axis.set_title(
                f"face {number}: {how_many(face.frames, 'frame')}, mostly {emotion} "
                f"({percent(share)})",
                loc="left",
            )
        for axis in axes:
            axis.set(xlim=(0, max(seconds, 0.1)), ylim=(-2, 102), ylabel="probability (%)")
            axis.grid()
        axes[-1].set_xlabel("seconds")
        if faces:
            legend_below(figure, axes[0], most=labels.NUM_CLASSES)
    return figure
