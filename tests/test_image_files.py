"""Image folders: pixels by mode and format, what is refused before training, what is remembered."""

# mypy: disable-error-code="func-returns-value"

from __future__ import annotations

import json
import os
import runpy
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Main, make_config
from PIL import Image

from harness.choices.datasets import ImageFolder
from harness.config.errors import ConfigError
from harness.config.hydra_private import last_given
from harness.training import datasets as data
from harness.training import image_files

Pixels = list[list[list[int]]]  # rows of (red, green, blue)
OLD = 1_600_000_000  # seconds since 1970: long before any of these tests


# --- images of all kinds, of two rows of two pixels ----------------------------------------------


def png(depth: int, colour: int, rows: Iterable[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of 2 x 2 pixels with that bit depth and colour type."""
    data_ = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = struct.pack(">IIBBBBB", 2, 2, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", data_), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(bits: int, samples: int) -> bytes:
    """An uncompressed TIFF of 2 x 2 pixels: black-is-zero for one sample, else RGB and alpha."""
    content = bytes(range(2 * 2 * samples * bits // 8))
    photometric = 1 if samples == 1 else 2
    extra = [(338, 3, 1, 2)] if samples == 4 else []
    end = 8 + 2 + 12 * (9 + len(extra)) + 4  # of the directory; then bits per sample, then pixels
    where = end if samples > 2 else bits
    tags = [(256, 3, 1, 2), (257, 3, 1, 2), (258, 3, samples, where), (259, 3, 1, 1),
            (262, 3, 1, photometric), (273, 4, 1, end + 2 * samples), (277, 3, 1, samples),
            (278, 3, 1, 2), (279, 4, 1, len(content)), *extra]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head + struct.pack(f"<{samples}H", *[bits] * samples) + content


def saved(mode: str, values: object, **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.new(mode, (2, 2))
        image.putdata(values)  # type: ignore[arg-type]
        image.save(path, **options)  # type: ignore[arg-type]

    return write


def palette(transparent: bool) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.new("P", (2, 2))
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        image.putdata([0, 1, 2, 0])
        options: dict[str, Any] = {"transparency": 0} if transparent else {}
        image.save(path, **options)

    return write


def frames(path: Path) -> None:
    first, second = (Image.new("RGB", (2, 2), colour) for colour in ((10, 20, 30), (99, 99, 99)))
    first.save(path, save_all=True, append_images=[second])


def turned(orientation: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        saved("RGB", [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)], exif=exif)(path)

    return write


def grey(*values: int) -> Pixels:
    first, second, third, fourth = ([value] * 3 for value in values)
    return [[first, second], [third, fourth]]


FOUR = [(10, 20, 30), (40, 50, 60), (70, 80, 90), (0, 255, 0)]
COLOURS = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [0, 255, 0]]]
SEEN_THROUGH = [(*FOUR[0], 255), (*FOUR[1], 0), (0, 0, 0, 128), (*FOUR[3], 255)]
ON_WHITE = [[[10, 20, 30], [255, 255, 255]], [[127, 127, 127], [0, 255, 0]]]
SHADES = [(7, 255), (7, 0), (0, 128), (200, 255)]
WHOLE_PALETTE = [[[10, 20, 30], [40, 50, 60]], [[70, 80, 90], [10, 20, 30]]]
PALETTE_ON_WHITE = [[[255, 255, 255], [40, 50, 60]], [[70, 80, 90], [255, 255, 255]]]

KINDS: dict[str, tuple[str, Callable[[Path], object], Pixels]] = {
    "RGB": ("png", saved("RGB", FOUR), COLOURS),
    "RGB, TIFF": ("tiff", saved("RGB", FOUR), COLOURS),
    "RGB, BMP": ("bmp", saved("RGB", FOUR), COLOURS),
    "RGB, PPM": ("ppm", saved("RGB", FOUR), COLOURS),
    "RGB, WebP": ("webp", saved("RGB", FOUR, lossless=True), COLOURS),
    "grey": ("png", saved("L", [0, 7, 200, 255]), grey(0, 7, 200, 255)),
    "grey, PGM": ("pgm", saved("L", [0, 7, 200, 255]), grey(0, 7, 200, 255)),
    "grey of 4 values, PPM": (
        "pgm", lambda path: path.write_bytes(b"P5 2 2 3\n\0\1\2\3"), grey(0, 85, 170, 255),
    ),
    "grey of 2 bits": (
        "png", lambda path: path.write_bytes(png(2, 0, [b"\x10", b"\xb0"])), grey(0, 85, 170, 255),
    ),
    "grey of 4 bits": (
        "png", lambda path: path.write_bytes(png(4, 0, [b"\x01", b"\xf8"])), grey(0, 17, 255, 136),
    ),
    "one bit": ("png", saved("1", [0, 255, 255, 0]), grey(0, 255, 255, 0)),
    "one bit, TIFF": ("tif", saved("1", [0, 255, 255, 0]), grey(0, 255, 255, 0)),
    "palette": ("png", palette(False), WHOLE_PALETTE),
    "palette, GIF": ("gif", palette(False), WHOLE_PALETTE),
    "palette with a transparent colour": ("png", palette(True), PALETTE_ON_WHITE),
    "palette with a transparent colour, GIF": ("gif", palette(True), PALETTE_ON_WHITE),
    "alpha": ("png", saved("RGBA", SEEN_THROUGH), ON_WHITE),
    "alpha, TIFF": ("tiff", saved("RGBA", SEEN_THROUGH), ON_WHITE),
    "alpha, WebP": ("webp", saved("RGBA", SEEN_THROUGH, lossless=True, exact=True), ON_WHITE),
    "grey with alpha": ("png", saved("LA", SHADES), grey(7, 255, 127, 200)),
    "RGB with a transparent colour": (
        "png", saved("RGB", FOUR, transparency=FOUR[1]), [[[10, 20, 30], [255] * 3], COLOURS[1]],
    ),
    "grey with a transparent value": ("png", saved("L", [0, 7, 0, 9], transparency=0), grey(255, 7, 255, 9)),
    "CMYK": (
        "tiff", saved("CMYK", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 155)]),
        [[[255, 255, 255], [0, 255, 255]], [[255, 0, 255], [100, 100, 100]]],
    ),
    "CMYK, JPEG": ("jpg", saved("CMYK", [(0, 0, 0, 155)] * 4, quality=100), grey(*[100] * 4)),
    "JPEG as .jfif": ("jfif", saved("L", [100] * 4, format="JPEG", quality=100), grey(*[100] * 4)),
    "first frame of a GIF": ("gif", frames, [[[10, 20, 30]] * 2] * 2),
    "first frame of a PNG": ("png", frames, [[[10, 20, 30]] * 2] * 2),
    "first page of a TIFF": ("tiff", frames, [[[10, 20, 30]] * 2] * 2),
    "capitals": ("PNG", saved("L", [1, 2, 3, 4]), grey(1, 2, 3, 4)),
    **{
        f"EXIF orientation {number}": ("png", turned(number), grey(*upright))
        for number, upright in enumerate(
            [(1, 2, 3, 4), (2, 1, 4, 3), (4, 3, 2, 1), (3, 4, 1, 2),
             (1, 3, 2, 4), (3, 1, 4, 2), (4, 2, 3, 1), (2, 4, 1, 3)], start=1,
        )
    },
    "EXIF orientation 6, TIFF": ("tiff", turned(6), grey(3, 1, 4, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "write", "pixels"), KINDS.values(), ids=KINDS)
def test_pixels_are_those_that_a_viewer_shows_on_white(
    tmp_path: Path, suffix: str, write: Callable[[Path], object], pixels: Pixels
) -> None:
    path = tmp_path / f"image.{suffix}"
    write(path)
    assert path.suffix.lower() in image_files.SUFFIXES
    assert image_files.decode(path, 2).tolist() == pixels


# --- folders -------------------------------------------------------------------------------------


def make(root: Path, each: int = 8) -> Path:
    """Noise of two classes, as files that are old enough to be remembered."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(each):
                path = folder / f"{number}.png"
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
                os.utime(path, (OLD, OLD))
    return root


def flatten(root: Path) -> None:
    """Make `root/CLASS/*` of `root/train/CLASS/*`."""
    for folder in (root / "train").iterdir():
        folder.rename(root / folder.name)
    (root / "train").rmdir()
    shutil.rmtree(root / "test", ignore_errors=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "images")


def words(root: Path, *overrides: str) -> list[str]:
    folder = root.parent
    return [
        "dataset=image_folder", f"dataset.root={root}", "dataset.image_size=8", "dataset.workers=0",
        "dataset.val_size=4", "model.width=2", "trainer.batch_size=4", "trainer.epochs=2",
        "scheduler.t_0=1", "tracking=none", f"store.dir={folder}/store", f"hydra.run.dir={folder}/run",
        f"hydra.sweep.dir={folder}/sweep", *overrides,
    ]  # fmt: skip


def settings(root: Path, *overrides: str) -> ImageFolder:
    config = make_config(*words(root, *overrides)[:5], *overrides).dataset
    assert isinstance(config, ImageFolder)
    return config


def result(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "result.json").read_text())
    return found


def refused(root: Path, main: Main, *command: str) -> str:
    """The error of `command`, which trains nothing."""
    done = main(*command)
    assert done.returncode == 1
    assert not list(root.parent.glob("**/history.jsonl"))
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last.removeprefix("error: ")


def replace(path: Path, old: bool) -> None:
    """Put something of equal size that is no image in the place of `path`; `old`: as if long ago."""
    path.write_bytes(b"x" * path.stat().st_size)
    if old:
        os.utime(path, (OLD, OLD))


def pages_cut_off(path: Path) -> None:
    frames(path.with_suffix(".tiff"))
    path.with_suffix(".tiff").rename(path)
    path.write_bytes(path.read_bytes()[:-300])


DEEP = "has more than 8 bits a channel; save it with 8"
NO_IMAGE = "is not an image that can be read"
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "PNG, RGB of 16 bits": (lambda p: p.write_bytes(png(16, 2, [bytes(12)] * 2)), DEEP),
    "PNG, RGBA of 16 bits": (lambda p: p.write_bytes(png(16, 6, [bytes(16)] * 2)), DEEP),
    "PNG, grey of 16 bits": (lambda p: p.write_bytes(png(16, 0, [bytes(4)] * 2)), DEEP),
    "PNG, grey of 16 bits with alpha": (lambda p: p.write_bytes(png(16, 4, [bytes(8)] * 2)), DEEP),
    "TIFF, RGB of 16 bits": (lambda p: p.write_bytes(tiff(16, 3)), DEEP),
    "TIFF, RGBA of 16 bits": (lambda p: p.write_bytes(tiff(16, 4)), DEEP),
    "TIFF, grey of 16 bits": (lambda p: p.write_bytes(tiff(16, 1)), DEEP),
    "TIFF of 32 bits": (lambda p: p.write_bytes(tiff(32, 1)), DEEP),
    "PPM of 16 bits": (lambda p: p.write_bytes(b"P6 2 2 65535\n" + bytes(24)), DEEP),
    "PPM in words": (lambda p: p.write_bytes(b"P3 1 1 1000\n 0 500 1000"), DEEP),
    "empty": (lambda p: p.write_bytes(b""), NO_IMAGE),
    "PostScript, which would start a program": (
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n"), NO_IMAGE,
    ),
    "a later frame cut off": (pages_cut_off, NO_IMAGE),
    "a link to nothing": (
        lambda p: (p.unlink(), p.symlink_to("/nowhere")), "No such file or directory",
    ),
    "a named pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "is not a file"),
}  # fmt: skip


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize(("write", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_is_refused_before_training(
    root: Path, main: Main, part: str, write: Callable[[Path], object], reason: str
) -> None:
    path = root / part / "dog" / "3.png"
    write(path)
    line = refused(root, main, *words(root))
    assert line.startswith(f"dataset.root: {path} ")
    assert reason in line


def test_a_sweep_with_a_file_that_cannot_be_used_begins_no_run(root: Path, main: Main) -> None:
    other = Path(shutil.copytree(root, root.parent / "other"))
    replace(other / "test/cat/0.png", old=False)
    line = refused(root, main, "-m", *words(root), f"dataset.root={root},{other}")
    assert line == f"dataset.root: {other}/test/cat/0.png is not an image that can be read"


@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_cannot_be_used_is_named_up_to_twenty(
    tmp_path: Path, main: Main, workers: int
) -> None:
    root = make(tmp_path / "images", each=40)
    paths = [root / part / "dog" / f"{n}.png" for part in ("test", "train") for n in range(12)]
    for path in paths:
        path.write_bytes(b"")
    line = refused(root, main, *words(root, f"dataset.workers={workers}"))
    assert line.startswith(f"dataset.root={root}: 24 files cannot be used: train/dog/0.png ")
    assert line.count("is not an image that can be read") == 20
    assert line.endswith("; and 4 more")


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "one class": (
        lambda root: [shutil.rmtree(root / part / "dog") for part in ("train", "test")],
        "train/ has one class only, cat; needs a folder for each of at least two classes",
    ),
    "one level too many": (
        lambda root: (root / "train").rename(root / "all") and shutil.move(root / "all", root / "train/all"),
        "train/ has one class only, all; needs a folder for each of at least two classes",
    ),
    "images beside the classes": (
        lambda root: [shutil.rmtree(root / "train"), (root / "train").mkdir(),
                      Image.new("L", (2, 2)).save(root / "train/0.png")],
        "train/ has no class; needs a folder for each of at least two classes",
    ),
    "a class of files of another kind": (
        lambda root: [p.rename(p.with_suffix(".heic")) for p in (root / "train/dog").iterdir()],
        "train/dog has no image (left out: 8 .heic); add some, or remove it",
    ),
    "a class of hidden files": (
        lambda root: [p.rename(p.with_name(f".{p.name}")) for p in (root / "train/dog").iterdir()],
        "train/dog has no image; add some, or remove it",
    ),
    "an empty test set": (
        lambda root: [shutil.rmtree(root / "test"), (root / "test").mkdir()],
        "test/ has no image; needs test/CLASS/IMAGE files, or no test/",
    ),
    "a test set that is a file": (
        lambda root: [shutil.rmtree(root / "test"), (root / "test").touch()],
        "needs test/CLASS/IMAGE files",
    ),
    "a test set that leads nowhere": (
        lambda root: [shutil.rmtree(root / "test"), (root / "test").symlink_to("nowhere")],
        "needs test/CLASS/IMAGE files",
    ),
    "no training images": (
        lambda root: shutil.rmtree(root / "train"), "needs train/CLASS/IMAGE or CLASS/IMAGE files",
    ),
    "nothing": (
        lambda root: (shutil.rmtree(root), root.mkdir()), "needs train/CLASS/IMAGE or CLASS/IMAGE files",
    ),
    "a split under another name": (
        lambda root: (flatten(root), (root / "Validation").mkdir()),
        "needs train/CLASS/IMAGE or CLASS/IMAGE files; Validation is the name of a split: rename it, or add train/",
    ),
    "one class alone": (
        lambda root: (flatten(root), shutil.rmtree(root / "dog")),
        "has one class only, cat; needs a folder for each of at least two classes, CLASS/IMAGE",
    ),
    "a class without images": (
        lambda root: (flatten(root), (root / "bird").mkdir()),
        "bird has no image; add some, or remove it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_no_data_set(
    root: Path, main: Main, change: Callable[[Path], object], says: str
) -> None:
    change(root)
    line = refused(root, main, *words(root))
    assert line.startswith(f"dataset.root={root}: ")
    assert says in line


@pytest.mark.parametrize("given", ["train", ".."])
def test_a_root_that_is_one_level_off_is_answered_with_the_right_one(
    root: Path, main: Main, given: str
) -> None:
    line = refused(root, main, *words(root), f"dataset.root={(root / given).resolve()}")
    assert line.endswith(
        f"needs train/CLASS/IMAGE or CLASS/IMAGE files; did you mean dataset.root={root}?"
    )


def test_a_class_that_a_split_leaves_empty_is_called_by_its_name(root: Path, main: Main) -> None:
    for number in range(1, 8):
        (root / "train/dog" / f"{number}.png").unlink()
    assert refused(root, main, *words(root)) == (
        "dataset.val_size=4: class dog has one image, and each part needs one; add some"
    )


def test_what_is_read_and_what_is_left_out_is_said_once(root: Path, main: Main) -> None:
    shutil.copy(root / "train/cat/0.png", root / "train/cat/._0.png")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        shutil.copytree(root / "train/cat", root / "train" / name)
        shutil.copytree(root / "train/cat", root / "train/dog" / name)
    (root / "train/.DS_Store").touch()
    saved("L", [1, 2, 3, 4], format="JPEG")(root / "train/cat/more.jfif")
    frames(root / "train/cat/more.gif")
    for name in (
        "train/cat/a.heic",
        "test/dog/b.HEIC",
        "train/dog/labels.txt",
        "train/README",
        "test/cat/noname",
    ):
        (root / name).touch()  # fmt: skip
    shutil.copy(root / "train/cat/1.png", root / "test/dog/same.png")
    done = main("-m", *words(root, "seed=0,1"))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if str(root) in line or "warning: 1 " in line]
    assert said[0] == (
        f"dataset.root={root}: 2 classes, 14 images to train, 4 to validate, 17 to test; "
        "left out: 2 .heic, 1 in no class's folder, 1 .txt, 1 without an extension"
    )
    assert (
        "warning: 1 files hold several frames, of which the first counts, as train/cat/more.gif"
        in said
    )
    assert "warning: 1 images of test/ are in train/ too, as test/dog/same.png" in said
    assert sum(line.startswith("dataset.root=") for line in said) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_name_that_is_no_text_is_no_obstacle(root: Path, main: Main, whole: bool) -> None:
    path = os.fsencode(root / "test/dog") + b"/\xff.png"
    os.rename(root / "test/dog/0.png", path)
    if not whole:
        Path(os.fsdecode(path)).write_bytes(b"")
    done = main(*words(root))
    assert done.returncode == int(not whole), done.stderr
    if not whole:
        assert done.stderr.splitlines()[-1] == (
            f"error: dataset.root: {root}/test/dog/\\xff.png is not an image that can be read"
        )


# --- what is remembered --------------------------------------------------------------------------


def test_a_file_is_decoded_once_and_again_when_it_has_changed(root: Path) -> None:
    config = settings(root)
    assert config.unchecked() == 32
    before = data.load(config)
    assert config.unchecked() == 0
    replace(root / "test/dog/3.png", old=True)
    assert data.load(config).test_sha256 == before.test_sha256, "it was not read again"
    replace(root / "test/dog/3.png", old=False)
    assert config.unchecked() == 1
    with pytest.raises(ConfigError, match=r"test/dog/3\.png is not an image that can be read"):
        data.load(config)
    assert config.unchecked() == 1, "what cannot be used is not remembered"


def test_a_file_that_changes_as_it_was_read_is_read_again(root: Path) -> None:
    """Within the granularity of the file system's times a change cannot be seen."""
    config, path = settings(root), root / "train/cat/0.png"
    path.touch()
    data.load(config)
    about = path.stat()
    replace(path, old=False)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(ConfigError, match=r"train/cat/0\.png is not an image that can be read"):
        data.load(config)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "memory"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), id="cut off"),
        pytest.param(lambda path: path.write_text('{"files": {}}'), id="of another kind"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a folder"),
        pytest.param(flip_a_bit, id="a bit flipped"),
    ],
)
def test_a_damaged_memory_costs_decoding_again(
    root: Path, memory: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object]
) -> None:
    config = settings(root)
    before = data.load(config)
    (path,) = memory.iterdir()
    damage(path)
    assert config.unchecked() == 32
    after = data.load(config)
    assert (after.sha256, after.test_sha256) == (before.sha256, before.test_sha256)
    assert "warning: what was known of the images cannot be read: " in capsys.readouterr().err
    if path.is_file():
        assert config.unchecked() == 0


def test_a_memory_that_cannot_be_written_costs_a_warning(
    root: Path, tmp_path: Path, main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file/below"))
    done = main(*words(root))
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "is not remembered" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("; set HARNESS_CACHE")


def test_what_another_version_decoded_does_not_count(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(root)
    before = data.load(config)
    monkeypatch.setattr(image_files, "DECODING", image_files.DECODING + 1)
    assert config.unchecked() == 32
    after = data.load(config)
    assert after.sha256 != before.sha256
    assert after.test_sha256 != before.test_sha256


def test_the_memory_is_below_the_cache_of_the_user(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data.load(settings(root))
    assert len(list((tmp_path / "cache/cosine-restarts").glob("images-*.json"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data.load(settings(root))
    assert len(list((tmp_path / "home/.cache/cosine-restarts").glob("images-*.json"))) == 1


# --- the test set, which is not what was trained -------------------------------------------------


def test_another_test_set_is_evaluated_and_nothing_is_trained(root: Path, main: Main) -> None:
    again = f"hydra.run.dir={root.parent}/again"
    assert main(*words(root)).returncode == 0
    first = result(root.parent / "run")
    saved("RGB", FOUR)(root / "test/dog/3.png")
    done = main(*words(root), again)
    assert done.returncode == 0, done.stderr
    second = result(root.parent / "again")
    assert second["updates_trained"] == 0
    assert second["test"] != first["test"]
    assert second["test_sha256"] != first["test_sha256"]
    for same in ("fingerprint", "run_id", "data_sha256", "weights_sha256", "final"):
        assert second[same] == first[same]
    third = main(*words(root), f"hydra.run.dir={root.parent}/third")
    assert third.returncode == 0
    assert result(root.parent / "third")["test"] == second["test"]


def test_a_test_set_that_is_away_for_a_while_leaves_what_is_stored_of_it(
    root: Path, main: Main
) -> None:
    assert main(*words(root)).returncode == 0
    (end,) = (
        path
        for path in root.parent.glob("store/*/*.json")
        if json.loads(path.read_text()).get("test") is not None
    )
    before = end.read_bytes()
    (root / "test").rename(root / "away")
    assert main(*words(root), f"hydra.run.dir={root.parent}/without").returncode == 0
    without = result(root.parent / "without")
    assert (without["updates_trained"], without["test"]) == (0, {})
    assert end.read_bytes() == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_training_or_validation_images_are_another_run(root: Path, split: str) -> None:
    before = data.load(settings(root))
    source = getattr(before, split)
    saved("RGB", FOUR)(root / source.paths[0])
    after = data.load(settings(root))
    assert after.sha256 != before.sha256
    assert after.test_sha256 == before.test_sha256


def test_a_folder_without_a_test_set_is_trained_and_says_so(
    root: Path, main: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "test")
    done = main("-m", *words(root, "scheduler.t_mult=1,2"))
    assert done.returncode == 0, done.stderr
    assert "none to test: no test/, no dataset.test_size" in done.stderr
    assert "no test/acc: there is no test set" in done.stderr
    one = result(root.parent / "sweep/0")
    assert (one["status"], one["test"], one["no_test"]) == ("complete", {}, "there is no test set")
    assert one["final"]
    assert one["test_sha256"] is None
    header, _, line, *_ = done.stdout.splitlines()
    column = header.index("test/acc %")
    assert line[column : column + len("test/acc %")].strip() == "-"
    assert (root.parent / "sweep/report.html").exists()

    monkeypatch.setattr(sys, "argv", ["snapshot_ensemble.py", str(root.parent / "sweep")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts/snapshot_ensemble.py"), run_name="__main__")
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: dataset: has no test set, on which ensembles are compared"
    )


@pytest.mark.parametrize("sweep", [True, False])
def test_a_claim_about_a_test_set_that_is_not_there_is_refused(
    root: Path, main: Main, sweep: bool
) -> None:
    shutil.rmtree(root / "test")
    swept = ("-m", "scheduler.t_mult=1,2") if sweep else ()
    line = refused(root, main, *swept, *words(root, "claim.metric=test/acc"))
    assert line.removeprefix("t_mult=1: ") == (
        f"claim.metric=test/acc: dataset.root={root} has no test/; set dataset.test_size, "
        "or use claim.metric=val/acc"
    )


@pytest.mark.parametrize("flat", [True, False])
def test_test_images_are_split_off_where_there_is_no_test_set(
    root: Path, main: Main, flat: bool
) -> None:
    shutil.rmtree(root / "test")
    if flat:
        flatten(root)
    given = ("dataset.test_size=0.25", "dataset.val_size=0.25", "claim.metric=test/acc")
    done = main(*words(root, *given))
    assert done.returncode == 0, done.stderr
    assert "2 classes, 9 images to train, 3 to validate, 4 to test" in done.stderr
    assert result(root.parent / "run")["images"] == {"train": 9, "val": 3, "test": 4}
    config = settings(root, *given)
    assert data.training_shape(config).train == 9
    splits = data.load(config)
    sources = [splits.train, splits.val, splits.test]
    assert all(isinstance(source, data.ImageFiles) for source in sources)
    paths = [str(path) for source in sources for path in source.paths]  # type: ignore[union-attr]
    before = "" if flat else "train/"
    assert sorted(paths) == sorted(f"{before}{c}/{n}.png" for c in ("cat", "dog") for n in range(8))
    test = splits.test
    assert test is not None
    assert test.labels.tolist() == [0, 0, 1, 1]


def test_a_size_of_a_test_set_that_is_there_is_refused(root: Path, main: Main) -> None:
    assert refused(root, main, *words(root, "dataset.test_size=4")) == (
        f"dataset.test_size=4: dataset.root={root} has its own test/; set dataset.test_size=null"
    )


def test_a_flat_folder_is_the_training_set_of_one_with_a_split(root: Path) -> None:
    shutil.rmtree(root / "test")
    with_train = data.load(settings(root))
    flatten(root)
    flat = data.load(settings(root))
    for one, other in ((with_train.train, flat.train), (with_train.val, flat.val)):
        assert isinstance(one, data.ImageFiles)
        assert isinstance(other, data.ImageFiles)
        assert one.paths.tolist() == [f"train/{path}" for path in other.paths]
        assert one.labels.tolist() == other.labels.tolist()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_a_test_set_that_breaks_while_a_run_lasts_costs_the_test_accuracy_alone(
    root: Path, main: Main, workers: int
) -> None:
    """It is whole when it is looked at: here, as what is remembered of it says."""
    data.load(settings(root))
    content = (root / "test/dog/3.png").read_bytes()
    replace(root / "test/dog/3.png", old=True)
    command = words(root, f"dataset.workers={workers}")
    done = main(*command)
    assert done.returncode == 0, done.stderr
    reason = f"the test set cannot be read: dataset.root: {root}/test/dog/3.png is not an image that can be read"
    assert f"no test/acc: {reason}" in done.stderr
    broken = result(root.parent / "run")
    assert (broken["status"], broken["test"], broken["no_test"]) == ("complete", {}, reason)
    assert broken["final"]
    assert broken["updates_trained"] == 6

    (root / "test/dog/3.png").write_bytes(content)
    assert main(*command).returncode == 0
    assert result(root.parent / "run") == broken, "what is complete stays as it is"
    assert main(*command, "retry=true").returncode == 0
    whole = result(root.parent / "run")
    assert (whole["updates_trained"], whole["no_test"]) == (0, None)
    assert whole["test"]
    assert whole["weights_sha256"] == broken["weights_sha256"]


@pytest.mark.slow
def test_images_are_streamed_beside_w_and_b_in_a_fresh_process(root: Path, tmp_path: Path) -> None:
    """W&B's hooks on imports fail in the processes that read images: nothing may be imported there first."""
    given = words(
        root, "dataset.workers=2", "dataset.crop=0", "dataset.resized_crop=0.3", "dataset.rand_augment=9",
        "dataset.erase=0.5", "tracking=wandb", "tracking.mode=offline",
    )  # fmt: skip
    script = [sys.executable, str(ROOT / "train.py"), *last_given(given)]
    for _ in range(2):  # the second time without looking at the images first
        done = subprocess.run(
            [*script, "retry=true", "reuse=false"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
