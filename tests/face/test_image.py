"""What may pass the door, and how it comes out: upright, RGB, 8 bits."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge.errors import PictureTooSmall, UnknownPicture
from edge.face import image
from edge.types import Box, Picture

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
FORMATS = ("JPEG", "PNG", "WebP", "BMP")
END = b"\xff\xd9"


def quarters(columns: int = 160, rows: int = 96) -> Image.Image:
    """Red and green above blue and yellow."""
    pixels = np.zeros((rows, columns, 3), np.uint8)
    pixels[: rows // 2, : columns // 2] = RED
    pixels[: rows // 2, columns // 2 :] = GREEN
    pixels[rows // 2 :, : columns // 2] = BLUE
    pixels[rows // 2 :, columns // 2 :] = YELLOW
    return Image.fromarray(pixels)


def noise(columns: int = 160, rows: int = 96) -> Image.Image:
    """What no format compresses to nothing."""
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (rows, columns, 3), np.uint8))


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:
    if format == "JPEG":
        options = {"quality": 95, "subsampling": 0, **options}
    if format == "WebP":
        options = {"lossless": True, **options}
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def decode(data: bytes, *, max_pixels: int = 40_000_000, min_side: int = 64) -> Picture:
    return image.decode(data, max_pixels=max_pixels, min_side=min_side)


def difference(a: Picture, b: Image.Image) -> float:
    """The greatest difference of two pictures' pixels, but for the few at the edges between colours."""
    want = np.asarray(b)
    assert a.shape == want.shape
    return float(np.quantile(np.abs(a.astype(int) - want), 0.97))


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment, its first."""
    return jpeg[:2] + segment(marker, content) + jpeg[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(columns: int, rows: int, *, depth: int = 8, rest: bytes = b"") -> bytes:
    """A PNG in grey of which only the beginning is there, but for `rest`."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IEND", b"")


def chunk_of(kind: bytes, content: bytes) -> bytes:
    """A WebP's chunk."""
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def exif(orientation: int, order: str = "<") -> bytes:
    """A directory of one entry."""
    sign = b"II" if order == "<" else b"MM"
    return sign + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def reason(refused: pytest.ExceptionInfo[UnknownPicture]) -> str:
    (mistake,) = refused.value.mistakes
    assert mistake.field == "image"
    return mistake.reason


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever reaches the decoder fails the test."""

    def called(*_: object) -> NoReturn:
        pytest.fail("the decoder was called")

    monkeypatch.setattr(cv2, "imdecode", called)


# --- upright ---

TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture comes to lie in the file for each EXIF orientation."""


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(format: str, orientation: int) -> None:
    upright = quarters()
    method = TO_STORED[orientation]
    stored = upright if method is None else upright.transpose(method)
    tag = Image.Exif()
    tag[0x0112] = orientation
    assert difference(decode(saved(stored, format, exif=tag)), upright) <= 4


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_read_in_both_byte_orders(order: str) -> None:
    data = with_segment(saved(quarters(), "JPEG"), 0xE1, b"Exif\0\0" + exif(6, order))
    assert decode(data).shape == (160, 96, 3)


@pytest.mark.parametrize("mark", [b"", b"Exif\0\0"])
def test_exif_of_a_webp_may_begin_with_the_mark_of_a_jpeg_s(mark: bytes) -> None:
    flags = b"\x08\0\0\0"  # there is EXIF
    canvas = (159).to_bytes(3, "little") + (95).to_bytes(3, "little")
    pixels = saved(quarters(), "WebP")[12:]
    data = riff(chunk_of(b"VP8X", flags + canvas) + pixels + chunk_of(b"EXIF", mark + exif(6)))
    assert difference(decode(data), quarters().transpose(Image.Transpose.ROTATE_270)) == 0


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    data = with_segment(saved(quarters(), "JPEG"), 0xE1, b"Exif\0\0" + exif(orientation))
    assert decode(data).shape == (96, 160, 3)


def test_the_first_exif_of_a_jpeg_counts() -> None:
    data = with_segment(saved(quarters(), "JPEG"), 0xE1, b"Exif\0\0" + exif(3))
    data = with_segment(data, 0xE1, b"Exif\0\0" + exif(6))
    data = with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
    assert decode(data).shape == (160, 96, 3)


@given(st.binary(max_size=80) | st.integers(0, 0xFFFF).map(exif))
@example(exif(6)[:-6])
@example(b"II*\0\xff\xff\xff\xff")
@settings(max_examples=50)
def test_no_exif_makes_a_sound_picture_unknown(content: bytes) -> None:
    data = with_segment(saved(quarters(64, 64), "JPEG"), 0xE1, b"Exif\0\0" + content)
    assert decode(data).shape == (64, 64, 3)


# --- the four formats, and no other ---


@pytest.mark.parametrize("format", FORMATS)
def test_the_four_formats_are_decoded(format: str) -> None:
    assert difference(decode(saved(quarters(), format)), quarters()) <= 4


@pytest.mark.parametrize(
    "data",
    [
        saved(quarters(), "GIF"),
        saved(quarters(), "TIFF"),
        saved(quarters(), "JPEG2000"),
        saved(quarters(), "PPM"),
        b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miafMA1B" + bytes(400),
        b"%PDF-1.7\n" + bytes(400),
        b"<!DOCTYPE html><html><body>401</body></html>",
        b"just a text, " * 50,
        b"",
        b"B",
        b"\xff\xd8",
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(400),
        bytes(400),
    ],
    ids=["gif", "tiff", "jpeg2000", "ppm", "avif", "pdf", "html", "text", "empty", "B", "soi", "wav", "zeros"],
)
@pytest.mark.usefixtures("no_decoder")
def test_anything_else_reaches_no_decoder(data: bytes) -> None:
    with pytest.raises(UnknownPicture) as refused:
        decode(data)
    assert reason(refused) == "not a JPEG, PNG, WebP or BMP by its first bytes"
    assert refused.value.message == "image format is unknown"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("no_decoder")
def test_nothing_but_the_first_bytes_reaches_no_decoder(format: str) -> None:
    data = saved(quarters(), format)
    for length in range(4, 26):
        with pytest.raises(UnknownPicture):
            decode(data[:length])


# --- colours and depths ---


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("YCbCr", "JPEG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("RGB", "WebP"),
        ("RGBA", "WebP"),
        ("RGB", "BMP"),
        ("RGBA", "BMP"),
        ("P", "BMP"),
    ],
)
def test_red_is_red(mode: str, format: str) -> None:
    picture = decode(saved(Image.new("RGB", (80, 70), RED).convert(mode), format))
    assert picture.shape == (70, 80, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("L", "BMP"), ("1", "BMP")]
)
def test_grey_is_the_same_in_all_three_channels(mode: str, format: str) -> None:
    grey = quarters().convert("L").convert(mode)
    picture = decode(saved(grey, format))
    assert difference(picture, grey.convert("RGB")) <= 4
    assert np.array_equal(picture[..., 0], picture[..., 1])
    assert np.array_equal(picture[..., 1], picture[..., 2])


def test_sixteen_bits_become_eight() -> None:
    levels = np.tile(np.linspace(0, 65535, 100).astype(np.uint16), (70, 1))
    picture = decode(saved(Image.fromarray(levels), "PNG"))
    assert picture.dtype == np.uint8
    assert np.abs(picture[..., 0].astype(int) - levels // 257).max() <= 1


def test_a_bmp_stored_from_the_top_is_not_upside_down() -> None:
    data = bytearray(saved(quarters(), "BMP"))
    struct.pack_into("<i", data, 22, -96)
    assert difference(decode(bytes(data)), quarters().transpose(Image.Transpose.FLIP_TOP_BOTTOM)) == 0


# --- the declared size ---


def jpeg_of(columns: int, rows: int, *, start_of_frame: int = 0xC0) -> bytes:
    frame = segment(start_of_frame, struct.pack(">BHHB", 8, rows, columns, 1) + b"\x01\x11\x00")
    return (
        b"\xff\xd8" + segment(0xE0, b"JFIF\0" + bytes(9)) + frame + segment(0xDA, b"\x01\x01\0\0\x3f\0") + b"\0" + END
    )


def bmp_of(columns: int, rows: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


HUGE = {
    "png": png(60_000, 60_000, rest=chunk(b"IDAT", zlib.compress(bytes(1000)))),
    "jpeg": jpeg_of(60_000, 60_000),
    "progressive jpeg": jpeg_of(60_000, 60_000, start_of_frame=0xC2),
    "webp": riff(chunk_of(b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + bytes(40))),
    "webp lossless": riff(chunk_of(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(40))),
    "webp extended": riff(chunk_of(b"VP8X", bytes(4) + (59_999).to_bytes(3, "little") * 2 + bytes(40))),
    "bmp": bmp_of(60_000, 60_000),
    "bmp from the top": bmp_of(60_000, -60_000),
    "bmp of the least number": bmp_of(60_000, -(2**31)),
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.usefixtures("no_decoder")
def test_a_huge_declared_size_is_refused_before_anything_is_decoded(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(UnknownPicture) as refused:
            decode(HUGE[name])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "pixels; the limit is 40 megapixels" in reason(refused)
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("format", "options"), [*((format, {}) for format in FORMATS), ("WebP", {"lossless": False})], ids=str
)
def test_the_limit_of_pixels_is_inclusive(format: str, options: dict[str, Any]) -> None:
    data = saved(quarters(100, 90), format, **options)
    assert decode(data, max_pixels=9000).shape == (90, 100, 3)
    with pytest.raises(UnknownPicture, match=r"declares 100 x 90 pixels; the limit is 0\.008999 megapixels"):
        decode(data, max_pixels=8999)


def test_opencv_itself_refuses_over_a_hundred_megapixels() -> None:
    """The last line of defence, should the header that was read not be the one that is decoded."""
    scanlines = zlib.compress(bytes(10_000 * (1 + 10_400 // 8)), 1)
    with pytest.raises(UnknownPicture, match="a PNG that cannot be decoded"):
        decode(png(10_400, 10_000, depth=1, rest=chunk(b"IDAT", scanlines)), max_pixels=200_000_000)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.usefixtures("no_decoder")
def test_a_side_under_the_least_is_too_small(format: str) -> None:
    for size in ((63, 90), (90, 63)):
        with pytest.raises(PictureTooSmall, match=f"{size[0]} x {size[1]} pixels; the least is 64 on a side"):
            decode(saved(quarters(*size), format))


@pytest.mark.parametrize("format", FORMATS)
def test_the_least_side_is_enough(format: str) -> None:
    assert decode(saved(quarters(64, 64), format)).shape == (64, 64, 3)


@pytest.mark.parametrize("format", FORMATS)
def test_a_strip_is_no_photograph(format: str) -> None:
    assert decode(saved(quarters(64, 64 * 20), format)).shape == (1280, 64, 3)
    with pytest.raises(UnknownPicture, match="the longest shape taken is 20 to 1"):
        decode(saved(quarters(64 * 20 + 2, 64), format))


@pytest.mark.usefixtures("no_decoder")
@pytest.mark.parametrize("data", [png(0, 100), jpeg_of(100, 0), bmp_of(0, 100)], ids=["png", "jpeg", "bmp"])
def test_a_picture_without_pixels_is_unknown(data: bytes) -> None:
    with pytest.raises(UnknownPicture, match="declares no pixels"):
        decode(data)


# --- cut short ---


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.95, 0.999])
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WebP", {}),
        ("WebP", {"lossless": False}),
        ("BMP", {}),
    ],
    ids=["jpeg", "progressive", "png", "webp lossless", "webp", "bmp"],
)
def test_a_picture_cut_short_is_unknown(format: str, options: dict[str, Any], share: float) -> None:
    whole = saved(noise(), format, **options)
    assert decode(whole).shape == (96, 160, 3)
    with pytest.raises(UnknownPicture):
        decode(whole[: int(len(whole) * share)])


@pytest.mark.usefixtures("no_decoder")
def test_a_jpeg_without_the_last_byte_of_its_end_is_cut_short(photos: dict[str, bytes]) -> None:
    """libjpeg paints grey what is missing, so the decoder would not tell."""
    data = photos["obama-1"]
    assert data.endswith(END)
    for length in (len(data) // 2, len(data) - 2, len(data) - 1):
        with pytest.raises(UnknownPicture, match="a JPEG that is cut short"):
            decode(data[:length])


@pytest.mark.usefixtures("no_decoder")
def test_a_webp_shorter_than_its_container_says_is_cut_short() -> None:
    data = saved(noise(), "WebP")
    with pytest.raises(UnknownPicture, match="a WebP that is cut short"):
        decode(data[:-1])


@pytest.mark.usefixtures("no_decoder")
def test_a_png_without_its_end_is_cut_short() -> None:
    data = saved(noise(), "PNG")
    for length in (len(data) // 2, len(data) - 20, len(data) - 6, len(data) - 1):
        with pytest.raises(UnknownPicture, match="a PNG that is cut short"):
            decode(data[:length])


@pytest.mark.usefixtures("no_decoder")
def test_a_png_whose_end_declares_content_never_reaches_the_decoder() -> None:
    # OpenCV 5.0 makes room for all of it, 4 GB here, before it sees that it is not there
    picture = png(64, 64)[:-12] + struct.pack(">I", 0xFFFFFF64) + b"IEND" + bytes(4)
    with pytest.raises(UnknownPicture, match="a PNG whose end declares content"):
        decode(picture)


@pytest.mark.usefixtures("no_decoder")
def test_a_bmp_that_ends_before_its_pixels_begin_is_cut_short() -> None:
    with pytest.raises(UnknownPicture, match="a BMP that is cut short"):
        decode(bmp_of(100, 100)[:50])


def with_thumbnail(jpeg: bytes) -> bytes:
    """The JPEG with an EXIF that holds another, whole JPEG, as cameras write it."""
    thumbnail = saved(quarters(80, 64), "JPEG")
    assert thumbnail.endswith(END)
    return with_segment(jpeg, 0xE1, b"Exif\0\0" + exif(1) + thumbnail)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_the_end_of_a_thumbnail_is_not_the_picture_s(options: dict[str, Any]) -> None:
    data = with_thumbnail(saved(noise(), "JPEG", **options))
    assert decode(data).shape == (96, 160, 3)
    with pytest.raises(UnknownPicture, match="a JPEG that is cut short"):
        decode(data[: len(data) // 2])


def scans_of(progressive: bytes) -> list[int]:
    """Where the scans begin."""
    return [at for at in range(len(progressive)) if progressive[at : at + 2] == b"\xff\xda"]


def test_the_end_in_a_comment_between_scans_is_not_the_picture_s() -> None:
    data = saved(noise(), "JPEG", progressive=True)
    second = scans_of(data)[1]
    data = data[:second] + segment(0xFE, b"over? " + END) + data[second:]
    assert decode(data).shape == (96, 160, 3)
    with pytest.raises(UnknownPicture, match="a JPEG that is cut short"):
        decode(data[:-2])


# --- what follows the picture, and how much of it there is ---


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_what_a_telephone_appends_is_ignored(options: dict[str, Any]) -> None:
    """Some append a film of several megabytes, in which any two bytes occur more than a hundred times."""
    film = random.Random(1).randbytes(200_000) + b"\xff\xda" * 1000
    assert difference(decode(saved(quarters(), "JPEG", **options) + film), quarters()) <= 4


def test_what_follows_a_png_is_ignored() -> None:
    assert difference(decode(saved(quarters(), "PNG") + bytes(1000)), quarters()) == 0


def test_rubbish_between_segments_is_skipped_as_the_decoder_does() -> None:
    data = saved(quarters(), "JPEG")
    assert difference(decode(data[:2] + segment(0xFE, b"hello") + b"\0\0\xff\xff" + data[2:]), quarters()) <= 4


def with_scans(number: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    data = saved(quarters(64, 64), "JPEG", progressive=True)
    begins = scans_of(data)
    return data[:-2] + data[begins[-1] : -2] * (number - len(begins)) + END


def test_as_many_scans_as_any_camera_writes_are_decoded() -> None:
    assert decode(with_scans(100)).shape == (64, 64, 3)


@pytest.mark.parametrize("disguise", [b"", segment(0xFE, END)], ids=["plain", "after an end in a comment"])
@pytest.mark.usefixtures("no_decoder")
def test_a_jpeg_of_too_many_scans_is_refused(disguise: bytes) -> None:
    data = with_scans(101)
    first = scans_of(data)[0]
    with pytest.raises(UnknownPicture, match="a JPEG of more than 100 scans"):
        decode(data[:first] + disguise + data[first:])


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xFE, b"") * 100_001 + saved(quarters(), "JPEG")[2:],
        png(100, 100, rest=chunk(b"teXt", b"") * 100_001),
        riff(chunk_of(b"VP8X", bytes(4) + (99).to_bytes(3, "little") * 2) + chunk_of(b"ABCD", b"") * 100_001),
    ],
    ids=["jpeg", "png", "webp"],
)
@pytest.mark.usefixtures("no_decoder")
def test_a_file_of_empty_segments_is_not_walked_for_ever(data: bytes) -> None:
    with pytest.raises(UnknownPicture, match=r"of more than 20,000 (segments|chunks)"):
        decode(data)


@pytest.mark.usefixtures("no_decoder")
def test_a_jpeg_without_a_picture_is_unknown() -> None:
    frame = segment(0xC0, struct.pack(">BHHB", 8, 100, 100, 1) + b"\x01\x11\x00")
    for parts in (segment(0xE0, b"JFIF\0"), segment(0xDA, b"\0") + b"\0", frame):
        data = b"\xff\xd8" + parts + END
        with pytest.raises(UnknownPicture, match="a JPEG without a picture"):
            decode(data)


# --- whatever may come ---


def outcome(data: bytes, min_side: int) -> None:
    """Decode; only the two refusals are swallowed."""
    try:
        picture = decode(data, min_side=min_side, max_pixels=4_000_000)
    except (UnknownPicture, PictureTooSmall):
        return
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert picture.dtype == np.uint8
    assert min(picture.shape[:2]) >= min_side


def test_every_bad_picture_is_decoded_or_refused(test_data: Path) -> None:
    files = sorted((test_data / "bad-images").iterdir())
    assert files
    for path in files:
        for min_side in (1, 64):
            outcome(path.read_bytes(), min_side)


@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBP", b"BM", b""]), st.binary(max_size=200)
)
def test_random_bytes_after_a_magic_are_refused(magic: bytes, rest: bytes) -> None:
    outcome(magic + rest, 1)


SMALL = [saved(noise(64, 64), format) for format in FORMATS]
SMALL += [saved(quarters(64, 64), "JPEG", progressive=True), saved(quarters(64, 64), "WebP", lossless=False)]


@given(st.sampled_from(SMALL), st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6))
@settings(max_examples=150)
def test_altered_pictures_are_decoded_or_refused(data: bytes, changes: list[tuple[float, bytes]]) -> None:
    altered = bytearray(data)
    for share, content in changes:
        at = int(share**3 * len(altered))  # more often near the beginning, where the headers are
        altered[at : at + len(content)] = content
    outcome(bytes(altered), 1)


@pytest.mark.parametrize(
    "fault", [lambda *_: None, lambda *_: (_ for _ in ()).throw(MemoryError)], ids=["nothing", "no memory"]
)
def test_what_the_decoder_cannot_do_is_unknown(monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]) -> None:
    monkeypatch.setattr(cv2, "imdecode", fault)
    with pytest.raises(UnknownPicture, match="a PNG that cannot be decoded"):
        decode(saved(quarters(), "PNG"))


# --- and back ---


def test_a_jpeg_is_written_in_the_right_colours() -> None:
    data = image.encode_jpeg(np.asarray(quarters()), quality=95)
    assert difference(decode(data), quarters()) <= 8
    assert Image.open(io.BytesIO(data)).format == "JPEG"


def test_a_mirrored_view_is_written_like_any_picture() -> None:
    mirrored = np.asarray(quarters())[:, ::-1]
    assert difference(decode(image.encode_jpeg(mirrored, quality=95)), Image.fromarray(mirrored)) <= 8


def test_quality_is_what_it_costs() -> None:
    picture = np.asarray(noise())
    assert len(image.encode_jpeg(picture, quality=50)) < len(image.encode_jpeg(picture, quality=95))


def test_a_cut_is_the_part_in_the_box() -> None:
    picture = np.asarray(quarters())
    part = image.cut(picture, Box(70, 40, 20, 30), longest=100)
    assert np.array_equal(part, picture[40:70, 70:90])


def test_a_cut_takes_every_pixel_that_the_box_touches() -> None:
    picture = np.asarray(noise())
    assert np.array_equal(image.cut(picture, Box(10.9, 20.9, 5.2, 5.2), longest=100), picture[20:27, 10:17])


def test_a_cut_ends_where_the_picture_ends() -> None:
    picture = np.asarray(noise())
    assert np.array_equal(image.cut(picture, Box(-30, -30, 50, 40), longest=100), picture[:10, :20])
    assert np.array_equal(image.cut(picture, Box(150.5, 90.5, 500, 500), longest=100), picture[90:, 150:])


@pytest.mark.parametrize("box", [Box(500, 10, 50, 50), Box(10, 500, 50, 50), Box(-80, -80, 50, 50)])
def test_a_cut_off_the_picture_is_empty(box: Box) -> None:
    assert image.cut(np.asarray(noise()), box, longest=100).size == 0


def test_a_cut_is_shrunk_in_proportion() -> None:
    part = image.cut(np.asarray(quarters()), Box(0, 0, 160, 96), longest=80)
    assert difference(part, quarters(80, 48)) == 0


def test_what_is_small_enough_is_not_shrunk() -> None:
    picture = np.asarray(noise())
    assert image.shrunk(picture, longest=160) is picture
    assert image.shrunk(picture, longest=159).shape == (95, 159, 3)
    assert image.shrunk(np.zeros((1000, 2, 3), np.uint8), longest=100).shape == (100, 1, 3)


# --- reduced ---


def jpeg(rows: int, columns: int, orientation: int = 1) -> bytes:
    slope = np.add.outer(np.linspace(0, 120, rows), np.linspace(0, 120, columns)).astype(np.uint8)
    data = image.encode_jpeg(np.repeat(slope[:, :, None], 3, axis=2), quality=90)
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + bytes(4)
    return data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]


def opened(data: bytes) -> image.Frame:
    return image.opened(data, max_pixels=40_000_000, min_side=16)


@pytest.mark.parametrize(
    ("rows", "columns", "scale", "reduction"),
    [
        (2160, 3840, 0.1, 8),
        (2160, 3840, 0.25, 4),
        (2160, 3840, 0.26, 2),
        (2160, 3840, 0.5, 2),
        (2160, 3840, 0.51, 1),
        (2160, 3840, 1.7, 1),
        (1080, 1920, 0.3, 2),
        (720, 1280, 0.1, 1),
    ],
)
def test_a_large_jpeg_is_worth_shrinking_where_less_is_enough(
    rows: int, columns: int, scale: float, reduction: int
) -> None:
    assert opened(jpeg(rows, columns)).reduction(scale) == reduction


def test_a_png_is_not_worth_shrinking() -> None:
    _, data = cv2.imencode(".png", np.zeros((2160, 3840, 3), np.uint8))
    assert opened(bytes(data)).reduction(0.1) == 1


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_a_reduced_picture_shows_the_same(reduction: int, orientation: int) -> None:
    frame = opened(jpeg(240, 480, orientation))
    whole, reduced = frame.picture(), frame.picture(reduction)
    assert whole.shape[:2] == frame.shape
    assert reduced.shape[:2] == (frame.shape[0] // reduction, frame.shape[1] // reduction)
    expected = cv2.resize(whole, reduced.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(expected.astype(int) - reduced).max() <= 3


@pytest.mark.parametrize("size", [(192, 108), (569, 320), (1200, 675), (1920, 1080), (2500, 1400)])
def test_resized_for_a_network_is_nearly_what_averaging_gives(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(4).integers(0, 256, (1080, 1920, 3), np.uint8)
    frame = np.asarray(cv2.GaussianBlur(frame, (0, 0), 4), np.uint8)
    made = image.resized(frame, size)
    assert made.shape == (size[1], size[0], 3)
    assert np.abs(made.astype(int) - cv2.resize(frame, size, interpolation=cv2.INTER_AREA)).mean() < 2
