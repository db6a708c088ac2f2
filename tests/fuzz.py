"""Thousands of odd files and options: each loads, or ends in the error that is documented for it.

    python -m tests.fuzz                           # 10,000 cases
    python -m tests.fuzz --cases 2000 --seed 7

Hypothesis makes the cases; the same seed makes the same ones. A case may take :data:`SECONDS` and
:data:`MEGABYTES`. A case that breaks a rule is printed, as small as Hypothesis can make it.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import random
import re
import resource
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import safetensors.torch
import torch
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from fer.core import labels
from fer.core.command_line import find_mistakes, refuse_odd_choices
from fer.core.composition import config_folder
from fer.core.errors import FerError
from fer.core.options import CHECKS, check_options
from fer.data.images import decode
from fer.data.readers import fer2013, rafdb
from fer.data.readers.base import RawDataset, check_records
from fer.data.readers.fer2013 import FER2013Reader
from fer.data.readers.folder import FolderReader
from fer.data.readers.rafdb import RAFDBReader
from fer.model.checkpoint import load_checkpoint
from fer.model.network import NormalisedNetwork
from fer.model.shared_cnn import SharedCNN
from fer.tasks.assembly import make_data, make_model
from tests.conftest import tiny_rows, to_jpeg, to_png, write_annotation, write_zip

DATA_KEYS = [
    *("dataset.name", "dataset.folder", "dataset.raw", "dataset.download", "dataset.kaggle"),
    *("dataset.workers", "dataset.undecodable", "dataset.leaks", "dataset.blank"),
    *("dataset.conflicts", "dataset.accept_altered", "dataset.drop_unknown", "dataset.synonyms"),
    *("dataset.columns", "dataset.faces"),
    *("dataset.reader", "dataset.reader.splits", "dataset.reader.images", "dataset.reader.margin"),
    *("dataset.reader.align_eyes", "dataset.reader.test_fraction", "dataset.reader.val_fraction"),
    *("dataset.reader.split_seed", "dataset.generator", "dataset.generator.train"),
    *("dataset.generator.val", "dataset.generator.test", "dataset.generator.seed"),
    *("loader.batch_size", "loader.eval_batch_size", "loader.num_workers", "loader.on_device"),
]
"""Options that the constructors of readers and data modules check."""
SECONDS = 20.0
"""What a case may take; they take milliseconds, but machines are busy at times."""
MEGABYTES = 2_000
"""By how much the process may grow beyond what it needed at the start."""


@dataclass
class Tally:
    """What the cases ended in."""

    loaded: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    """Seconds."""

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """One case: whatever is raised in it must be the documented error, with its three parts."""
        started = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's and NumPy's own, of odd content
                yield
            self.loaded[name] += 1
        except FerError as error:
            assert "expected" in str(error) or "Unknown emotion" in str(error), str(error)
            assert "found" in str(error) or "Unknown emotion" in str(error), str(error)
            str(error).encode("utf-8")  # it can be printed
            self.refused[name] += 1
        except (HydraException, OmegaConfBaseException, SystemExit):
            assert name == "overrides"  # Hydra's own messages, and the command line's
            self.refused[name] += 1
        taken = time.perf_counter() - started
        self.slowest[name] = max(taken, self.slowest.get(name, 0.0))
        assert taken < SECONDS, f"{name}: a case took {taken:.1f} s"


def peak() -> float:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_all(dataset: RawDataset) -> None:
    """What preparation does with a listing, without writing anything."""
    check_records("fuzz", dataset.records)
    for record in dataset.records[:4]:
        image = dataset.source.read(record)
        assert image.dtype == np.uint8 and image.size > 0


# --- what the cases are made of --------------------------------------------------------------

ODD = st.sampled_from(
    ["", " ", "\0", "\ufeff", "é", "\udce9", "\u0663", "-1", "+1", "1e3", "NaN", "7", "256", "'",
     '"', ",", ";", "\t", "\n", "\r", "\r\n", "..", "../x", "/etc/passwd", "C:\\x", "=1+1", "${x}",
     "happy", "Training", "PublicTest", "train", "image", "label", "9" * 400, "x" * 300, "{}"]
)  # fmt: skip
WORD = st.text(max_size=6) | ODD


class Whole(bytes):
    """A whole file; Hypothesis prints a strategy with what it is made from."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn, data: bytes, most: int = 6) -> bytes:
    """Bytes after a few changes, insertions, removals and perhaps a cut."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, most))):
        place = draw(st.integers(0, max(0, len(found) - 1)))
        what = draw(st.sampled_from(["set", "flip", "insert", "delete", "copy", "number"]))
        if what == "set" and found:
            found[place] = draw(st.integers(0, 255))
        elif what == "flip" and found:
            found[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            found[place:place] = draw(st.binary(max_size=8))
        elif what == "delete":
            del found[place : place + draw(st.integers(1, 16))]
        elif what == "copy":
            other = draw(st.integers(0, max(0, len(found) - 1)))
            found[place:place] = found[other : other + draw(st.integers(1, 64))]
        elif what == "number":  # sizes and offsets of formats
            number = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1]))
            width = draw(st.sampled_from([1, 2, 4, 8]))
            order = draw(st.sampled_from(["little", "big"]))
            found[place : place + width] = (number % 256**width).to_bytes(width, order)
    if draw(st.integers(0, 9)) == 9:
        del found[draw(st.integers(0, len(found))) :]
    return bytes(found)


@st.composite
def table(draw: st.DrawFn, header: list[str], row: Callable[[int], list[str]]) -> bytes:
    """A table, valid but for a few cells, its header, delimiter, encoding or some bytes."""
    names = list(header)
    rows = [row(number) for number in range(draw(st.sampled_from([0, 1, 9, *[42] * 6])))]
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        if rows:
            cells = draw(st.sampled_from(rows))
            cells[draw(st.integers(0, len(cells) - 1))] = draw(WORD)
    if draw(st.integers(0, 9)) == 9:
        names[draw(st.integers(0, len(names) - 1))] = draw(WORD)
    if draw(st.integers(0, 9)) == 9 and rows:
        draw(st.sampled_from(rows)).append(draw(WORD))
    delimiter = draw(st.sampled_from([*[","] * 5, ";", "\t", "|"]))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    text = end.join(delimiter.join(cells) for cells in [names, *rows])
    data = to_bytes(text)
    if draw(st.integers(0, 9)) == 9:
        encoding = draw(st.sampled_from(["utf-16", "utf-8-sig", "latin-1", "utf-32"]))
        data = text.encode(encoding, "replace")
    return draw(mutated(data)) if draw(st.integers(0, 3)) == 3 else data


# --- the kinds of cases ----------------------------------------------------------------------


class Kinds:
    """Each kind of case: a strategy and what is done with what it makes.

    Args:
        folder: to write the files in.
        tally: what the cases end in.
    """

    def __init__(self, folder: Path, tally: Tally) -> None:
        self.folder, self.tally = folder, tally
        self.rng = np.random.default_rng(0)
        self.faces = folder / "faces"
        self.faces.mkdir()
        for number in range(28):
            (self.faces / f"{number}.png").write_bytes(to_png(self.noise(8)))
        self.archive = Whole(write_zip(folder / "small.zip", tiny_rows()[::4]).read_bytes())
        self.pictures = self.make_pictures()
        self.checkpoint, self.exported = self.make_checkpoint()
        self.authors = folder / "rafdb"
        for place in (rafdb.ALIGNED, rafdb.BOXES, rafdb.MANUAL, "EmoLabel"):
            (self.authors / place).mkdir(parents=True, exist_ok=True)
        self.names = [f"{split}_{n:05d}" for split in ("train", "test") for n in range(14)]
        for name in self.names:
            (self.authors / rafdb.ALIGNED / f"{name}_aligned.jpg").write_bytes(
                to_jpeg(self.noise(16))
            )
            path = self.authors / rafdb.ORIGINAL / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_jpeg(np.repeat(self.noise(40)[..., None], 3, -1)))
            write_annotation(self.authors, name, "7 4 27 24\n", "2\n1\n3\n")

    def noise(self, side: int) -> np.ndarray:
        """A gray image of noise."""
        return self.rng.integers(0, 256, (side, side), dtype=np.uint8)

    def make_pictures(self) -> list[bytes]:
        """Small pictures in every format and in odd modes."""
        gray, colour = (
            Image.fromarray(self.noise(9)),
            Image.fromarray(self.rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)),
        )
        exif = Image.Exif()
        exif[0x0112] = 6
        forms: list[tuple[Image.Image, str, dict[str, Any]]] = [
            (gray, "PNG", {}), (colour, "PNG", {}), (colour.convert("RGBA"), "PNG", {}),
            (colour.quantize(8), "PNG", {"transparency": 1}), (gray, "JPEG", {}),
            (colour, "JPEG", {"exif": exif}), (colour, "JPEG", {"progressive": True}),
            (colour.convert("CMYK"), "JPEG", {}), (colour.quantize(8), "GIF", {}),
            (colour, "BMP", {}), (gray, "TIFF", {}), (colour, "TIFF", {"compression": "tiff_lzw"}),
            (gray.convert("I"), "TIFF", {}), (gray.convert("F"), "TIFF", {}),
            (colour, "TIFF", {"exif": exif}), (colour, "WEBP", {"lossless": True}),
            (colour.convert("RGBA"), "WEBP", {}), (colour, "WEBP", {"exif": exif}),
        ]  # fmt: skip
        found: list[bytes] = []
        for image, form, options in forms:
            buffer = io.BytesIO()
            image.save(buffer, form, **options)
            found.append(Whole(buffer.getvalue()))
        return found

    def make_checkpoint(self) -> tuple[bytes, bytes]:
        """One as training writes it, as far as evaluation reads it, and as export writes it."""
        options: dict[str, Any] = {"widths": [2, 2], "in_channels": 1, "image_size": 16}
        network = NormalisedNetwork(SharedCNN(**options))
        state = network.state_dict()
        dataset = {"choice": "fer2013", "name": "fer2013", "fingerprint": "0"}
        extras = {
            "model": network.describe(),
            "labels": list(labels.EMOTIONS),
            "dataset": {**dataset, "generator": None, "reader": {}, "options": {}},
            "seed": 0,
        }
        buffer = io.BytesIO()
        weights = {f"network.{key}": value for key, value in state.items()}
        torch.save({"epoch": 1, "state_dict": weights, "fer": extras}, buffer)
        metadata = {"fer": json.dumps(extras), "epoch": "1"}
        return Whole(buffer.getvalue()), Whole(safetensors.torch.save(state, metadata))

    def write(self, name: str, data: bytes) -> Path:
        """A file of a case."""
        path = self.folder / name
        path.write_bytes(data)
        return path

    # Each returns a strategy and a function of what it makes.

    def fer_table(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """``fer2013.csv``."""
        usages = [*["Training"] * 4, "PublicTest", "PrivateTest"]
        pixels = " ".join(map(str, self.rng.integers(0, 256, fer2013.PIXELS)))

        def row(number: int) -> list[str]:
            return [str(number % 7), pixels, usages[number // 7 % 6]]

        def check(data: bytes) -> None:
            with self.tally.case("fer2013.csv"):
                read_all(FER2013Reader().list(self.write("fer2013.csv", data)))

        return table(["emotion", "pixels", "Usage"], row), check

    def label_table(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """``image,label`` and ``image,label,split`` beside images."""

        def row(number: int) -> list[str]:
            return [f"{number % 28}.png", labels.EMOTIONS[number % 7]]

        def with_split(number: int) -> list[str]:
            return [*row(number), ("train", "train", "val", "test")[number // 7 % 4]]

        def check(data: bytes) -> None:
            with self.tally.case("image,label table"):
                path = self.faces / "labels.csv"
                path.write_bytes(data)
                read_all(FolderReader(drop_unknown=len(data) % 2 == 0).list(path))

        strategy = table(["image", "label"], row) | table(["image", "label", "split"], with_split)
        return strategy, check

    def label_list(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """RAF-DB's list of labels."""
        lines = [f"{name}.jpg {1 + number % 7}" for number, name in enumerate(self.names)]

        @st.composite
        def strategy(draw: st.DrawFn) -> bytes:
            found = [line.split(" ") for line in lines]
            for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
                words = draw(st.sampled_from(found))
                words[draw(st.integers(0, len(words) - 1))] = draw(WORD)
            data = to_bytes("\n".join(map(" ".join, found)))
            return draw(mutated(data)) if draw(st.integers(0, 3)) == 3 else data

        def check(data: bytes) -> None:
            with self.tally.case("RAF-DB label list"):
                (self.authors / rafdb.LIST_FILE).write_bytes(data)
                read_all(RAFDBReader().list(self.authors))

        return strategy(), check

    def annotation(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """RAF-DB's boxes, landmarks and attributes of one image."""
        lines = [f"{name}.jpg {1 + number % 7}\n" for number, name in enumerate(self.names)]
        whole = "".join(lines).encode()
        box = self.authors / rafdb.BOXES / f"{self.names[0]}_boundingbox.txt"
        manual = self.authors / rafdb.MANUAL / f"{self.names[0]}_manu_attri.txt"
        files = {path: Whole(path.read_bytes()) for path in (box, manual)}
        numbers = st.lists(st.floats().map(repr) | WORD, min_size=3, max_size=14)
        contents = st.one_of(
            numbers.map(lambda words: to_bytes(" ".join(words))),
            *(mutated(data) for data in files.values()),
            st.lists(st.integers(-(10**6), 10**6).map(str), min_size=4, max_size=4).map(
                lambda words: " ".join(words).encode()
            ),
        )

        def check(case: tuple[bytes, bytes, bool]) -> None:
            first, second, align = case
            with self.tally.case("RAF-DB annotation"):
                (self.authors / rafdb.LIST_FILE).write_bytes(whole)
                box.write_bytes(first)
                manual.write_bytes(second)
                read_all(RAFDBReader(images="original", align_eyes=align).list(self.authors))

        strategy = st.tuples(
            contents | st.just(files[box]), contents | st.just(files[manual]), st.booleans()
        )
        return strategy, check

    def archives(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """Zip archives: changed bytes, and members with odd names, sizes and methods."""

        @st.composite
        def made(draw: st.DrawFn) -> bytes:
            buffer = io.BytesIO()
            part = st.sampled_from(["train", "test", "happy", "sad", "1.png", "..", "", "é"]) | WORD
            with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
                warnings.simplefilter("ignore")  # of a name that stands there twice
                for _ in range(draw(st.integers(0, 8))):
                    name = "/".join(draw(st.lists(part, min_size=1, max_size=4)))
                    info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
                    info.compress_type = draw(st.sampled_from([0, 8, 12, 14]))
                    info.external_attr = draw(st.sampled_from([0, 0o120777 << 16, 0x10]))
                    archive.writestr(info, draw(st.sampled_from([b"", *self.pictures])))
            return buffer.getvalue()

        def check(case: tuple[bytes, bool]) -> None:
            data, own = case
            with self.tally.case("archive"):
                reader = FolderReader() if own else FER2013Reader()
                read_all(reader.list(self.write("archive.zip", data)))

        changed = mutated(self.archive, 4)
        return st.tuples(changed | changed | made(), st.booleans()), check

    def images(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """Pictures of every format with changed bytes."""

        def check(case: tuple[bytes, str | None]) -> None:
            data, mode = case
            with self.tally.case("image"):
                image = decode(data, "x", mode)
                assert image.dtype == np.uint8 and image.size and image.ndim in (2, 3)

        changed = st.sampled_from(self.pictures).flatmap(mutated)
        return st.tuples(changed, st.sampled_from([None, "L", "RGB"])), check

    def checkpoints(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """Checkpoints with changed bytes, in the file or in the pickle within it."""
        with zipfile.ZipFile(io.BytesIO(self.checkpoint)) as archive:
            parts = {name: Whole(archive.read(name)) for name in archive.namelist()}
        pickled = next(name for name in parts if name.endswith("data.pkl"))

        def repacked(data: bytes) -> bytes:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, part in parts.items():
                    archive.writestr(name, data if name == pickled else part)
            return buffer.getvalue()

        def check(data: bytes) -> None:
            with self.tally.case("checkpoint"):
                load_checkpoint(self.write("fuzz.ckpt", data))

        return mutated(self.checkpoint) | mutated(parts[pickled], 3).map(repacked), check

    def safetensors(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """Exported checkpoints with changed bytes, or with another header of the right length."""
        length = int.from_bytes(self.exported[:8], "little")
        header, body = Whole(self.exported[8 : 8 + length]), self.exported[8 + length :]
        odd = [b"-1", b"0", b"1e9", b"9" * 400, b"18446744073709551615", b"null", b'"F8_E4M3"',
               b'"F4"', b'"BOOL"', b'"U64"']  # fmt: skip
        words = sorted(set(re.findall(rb'"[^"]*"|-?\d+|[][{}]', header)))

        @st.composite
        def reworded(draw: st.DrawFn) -> bytes:
            found = bytes(header)
            for _ in range(draw(st.integers(1, 3))):
                old = draw(st.sampled_from(words))
                new = st.sampled_from([*words, *odd])
                found = found.replace(old, draw(new), draw(st.sampled_from([1, 1, 9])))
            return found

        def packed(data: bytes) -> bytes:
            return len(data).to_bytes(8, "little") + data + body

        def check(data: bytes) -> None:
            with self.tally.case("safetensors"):
                load_checkpoint(self.write("fuzz.safetensors", data))

        changed = reworded().map(packed) | mutated(header, 3).map(packed)
        return mutated(self.exported) | changed, check

    def overrides(self) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
        """Options of the command line."""
        keys = [
            *CHECKS,
            *DATA_KEYS,
            "hydra.run.dir",
            "hydra/launcher",
            "model.widths[0]",
            "dataset.reader.x",
            "x",
            "",
        ]
        groups = [path.name for path in config_folder().iterdir() if path.is_dir()]
        value = st.one_of(
            WORD, st.integers().map(str), st.floats().map(str), st.booleans().map(str),
            st.sampled_from(["null", "[1,2]", "{a: 1}", "[", "{", "${seed}", "${x.y}", "\\", "'",
                             "${oc.env:NO}", "1,2", "range(3)", "glob(*)", "choice(a,b)", "???",
                             "[[1]]", "fer2013", "folder", "none", "${now:%Y}", "0x10", "1_000"]),
        )  # fmt: skip
        key = st.sampled_from(keys) | st.sampled_from(groups) | WORD
        prefix = st.sampled_from(["", "", "", "+", "++", "~"])
        odd = st.builds(lambda p, k, v: f"{p}{k}={v}", prefix, key, value) | WORD
        fine = st.sampled_from(
            ["seed=3", "model.dropout=0.1", "~experiment", "loader.batch_size=8", "dataset=rafdb",
             "+trainer.gradient_clip_val=1.0", "paths.data='a b'", "dataset.raw=null"]
        )  # fmt: skip
        item = st.one_of(fine, fine, odd)
        pair = st.tuples(
            st.lists(item, min_size=1, max_size=3), st.sampled_from(["train", "prepare"])
        )

        def check(case: tuple[list[str], str]) -> None:
            items, config = case
            items = [text.encode("utf-8", "replace").decode() for text in items]
            with self.tally.case("overrides"):
                refuse_odd_choices(items)
                try:
                    with hydra.initialize_config_dir(
                        version_base="1.3", config_dir=str(config_folder())
                    ):
                        cfg = hydra.compose(config, overrides=items)
                except HydraException:
                    find_mistakes(config, items)  # what the user is told besides
                    raise
                check_options(cfg)
                if config == "train":
                    make_data(cfg, make_model(cfg.model))  # whose constructors check the rest
                OmegaConf.to_container(cfg, resolve=True)

        return pair, check


SHARES = {
    "fer_table": 0.15, "label_table": 0.15, "label_list": 0.1, "annotation": 0.12,
    "archives": 0.12, "images": 0.2, "checkpoints": 0.05, "safetensors": 0.05,
    "overrides": 0.06,
}  # fmt: skip
"""Of the cases, the share of each kind; an override takes the longest."""


def fuzz(folder: Path, cases: int, number: int, say: Callable[[str], object]) -> Tally:
    """Run so many cases.

    Args:
        folder: to write files in.
        cases: how many in all.
        number: the seed.
        say: prints a line.

    Raises:
        AssertionError: or whatever else a case raised that is not documented.
    """
    tally = Tally()
    kinds = Kinds(folder, tally)
    for name, share in SHARES.items():
        strategy, check = getattr(kinds, name)()
        count = max(1, round(cases * share))
        before = peak()
        # Each block has a seed of its own: Hypothesis stops when it thinks that it has seen all.
        source = random.Random(f"{number}:{name}")
        done = 0
        while done < count:
            part = min(500, count - done)

            options = settings(
                max_examples=part,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            )
            seed(source.randrange(2**32))(options(given(strategy)(check)))()
            done += part
        grown = peak() - before
        assert grown < MEGABYTES, f"{name}: the process grew by {grown:.0f} MB"
        say(f"{name}: {count} cases, grown by {grown:.0f} MB")
    return tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    print(f"seed {options.seed}, {options.cases} cases", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        tally = fuzz(Path(place), options.cases, options.seed, functools.partial(print, flush=True))
    summary = {
        "seed": options.seed,
        "cases": sum(tally.loaded.values()) + sum(tally.refused.values()),
        **vars(tally),
        "peak_megabytes": round(peak()),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
