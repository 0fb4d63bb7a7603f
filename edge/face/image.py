"""Bytes from anywhere to an upright RGB picture, and back to JPEG.

Only four formats, told by their first bytes, reach a decoder, and only after the size that they declare has
been read from the header and found bearable.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import cv2
import numpy as np

from edge.errors import Mistake, PictureTooSmall, UnknownPicture
from edge.types import Box, Picture

MAX_ASPECT = 20
"""A side over this many times the other is no photograph; decoders are at their worst on such."""

MAX_JPEG_SCANS = 100
"""A progressive JPEG of a camera has about ten; each costs a pass over all coefficients."""

REDUCED_FROM_PIXELS = 1_500_000
"""From this size on a JPEG is worth decoding at half its size or less, where that is enough: of 3840 x 2160 pixels it
takes 16 ms instead of 37 (a desktop core), of 1920 x 1080 4.5 instead of 6.7, of 1280 x 720 hardly less. What comes
after it, shrinking for the detector first of all, has a quarter of the pixels to look at."""

REDUCTIONS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_COLOR_RGB | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""By how much the JPEG decoder can shrink, and OpenCV's flags for it (the reduction's own flag is named after grey)."""

MAX_SEGMENTS = 20_000
"""Segments, scans or chunks of one file. Cameras write hundreds; 24 MB hold millions of empty ones, seconds to walk."""


@dataclass(frozen=True)
class Declared:
    """What the header says: the format's name, the size in pixels as stored, and the EXIF orientation (1..8)."""

    format: str
    columns: int
    rows: int
    orientation: int = 1

    @property
    def pixels(self) -> int:
        """Columns times rows."""
        return self.columns * self.rows


def broken(reason: str) -> UnknownPicture:
    """Return the refusal of a picture, with the reason for whoever sent it."""
    return UnknownPicture(Mistake("image", reason))


def declared(data: bytes) -> Declared:
    """Return format and size as the header declares them; UnknownPicture if it is none of the four, or cut short."""
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
        if data[:2] == b"BM":
            return _bmp(data)
    except (struct.error, IndexError):
        raise broken("the header is cut short") from None
    raise broken("not a JPEG, PNG, WebP or BMP by its first bytes")


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture whose header has been read and found bearable, its pixels not decoded yet."""

    data: bytes
    head: Declared

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        head = self.head
        return (head.columns, head.rows) if head.orientation >= 5 else (head.rows, head.columns)

    def reduction(self, scale: float) -> int:
        """Return by how much it is worth being shrunk while decoding, if only `scale` of its size is needed (0..1).

        1 where nothing is gained.
        """
        if self.head.format != "JPEG" or self.head.pixels < REDUCED_FROM_PIXELS:
            return 1
        return max(reduction for reduction in REDUCTIONS if reduction == 1 or reduction * scale <= 1)

    def picture(self, reduction: int = 1) -> Picture:
        """Return the picture, turned upright by its EXIF orientation, and a whole number of times smaller.

        `reduction`: a key of REDUCTIONS. UnknownPicture if it cannot be decoded.
        """
        flags = REDUCTIONS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            picture = cv2.imdecode(np.frombuffer(self.data, np.uint8), flags)
            if picture is not None:
                return _upright(np.asarray(picture, np.uint8), self.head.orientation)
        except (cv2.error, MemoryError):
            pass
        raise broken(f"a {self.head.format} that cannot be decoded")


def decode(data: bytes, *, max_pixels: int, min_side: int) -> Picture:
    """Return the picture, turned upright by its EXIF orientation. Raises what `opened` and `Frame.picture` raise."""
    return opened(data, max_pixels=max_pixels, min_side=min_side).picture()


def opened(data: bytes, *, max_pixels: int, min_side: int) -> Frame:
    """Return the picture as far as its header tells.

    UnknownPicture: not one of the four formats, cut short, broken, more than `max_pixels` pixels, or a side more than
    MAX_ASPECT times the other. PictureTooSmall: a side under `min_side` pixels.
    """
    head = declared(data)
    if head.columns < 1 or head.rows < 1:
        raise broken("declares no pixels")
    if head.pixels > max_pixels:
        megapixels = f"{max_pixels / 1e6:g} megapixels"
        raise broken(f"declares {head.columns} x {head.rows} pixels; the limit is {megapixels}")
    if min(head.columns, head.rows) < min_side:
        size = f"{head.columns} x {head.rows} pixels"
        raise PictureTooSmall(Mistake("image", f"{size}; the least is {min_side} on a side"))
    if max(head.columns, head.rows) > MAX_ASPECT * min(head.columns, head.rows):
        raise broken(f"declares {head.columns} x {head.rows} pixels; the longest shape taken is {MAX_ASPECT} to 1")
    return Frame(data, head)


def encode_jpeg(picture: Picture, *, quality: int) -> bytes:
    """Return the RGB picture as a JPEG; `quality` 1..100."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the picture cannot be encoded")
    return bytes(data)


def cut(picture: Picture, box: Box, *, longest: int) -> Picture:
    """Return the part of the picture in the box, shrunk so that neither side is over `longest` pixels.

    Without rows or without columns if the box does not meet the picture.
    """
    rows, columns = picture.shape[:2]
    inside = box.within(columns, rows)
    left, top = int(inside.x), int(inside.y)
    right = min(columns, int(np.ceil(inside.x + inside.width)))
    bottom = min(rows, int(np.ceil(inside.y + inside.height)))
    return shrunk(picture[top:bottom, left:right], longest=longest)


def resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the picture at that size (columns, rows), smaller without noticeable aliasing, and fast: for a network.

    Shrunk in two steps: OpenCV averages over whole pixels eight times faster than over parts of them, and what is then
    left to do, by less than two, bilinear interpolation does as well. Up to a whole factor less one of the last rows
    and columns is left out.
    """
    rows, columns = picture.shape[:2]
    factor = min(columns // size[0], rows // size[1])
    if factor > 1:
        whole = picture[: rows // factor * factor, : columns // factor * factor]
        picture = np.asarray(
            cv2.resize(whole, (columns // factor, rows // factor), interpolation=cv2.INTER_AREA), np.uint8
        )
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def shrunk(picture: Picture, *, longest: int) -> Picture:
    """Return the picture with its longer side at most `longest` pixels (itself if it already is)."""
    rows, columns = picture.shape[:2]
    if max(rows, columns) <= longest:
        return picture
    scale = longest / max(rows, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


# --- orientation ---

_EXIF_ORIENTATION = 0x0112

_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""EXIF orientation: what cv2.flip is told, after the transposition that those from 5 on need first."""


def _orientation(exif: bytes) -> int:
    """Return the orientation 1..8 that the EXIF (a TIFF header and directory) names; 1 if it names none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for number in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * number)
            if tag == _EXIF_ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # a broken EXIF is no reason to refuse a sound picture
        pass
    return 1


def _upright(picture: Picture, orientation: int) -> Picture:
    # Done here, because OpenCV 4.11 (the last that takes numpy 1) turns JPEG and PNG by EXIF, but not WebP.
    if orientation >= 5:
        picture = np.asarray(cv2.transpose(picture), np.uint8)
    if orientation in _FLIPS:
        picture = np.asarray(cv2.flip(picture, _FLIPS[orientation]), np.uint8)
    return picture


# --- headers ---

_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
"""A marker that begins a segment, or ends the picture. 0xFF 0 is a 0xFF among a scan's data, 0xFF 0xFF is filling,
the others have no segment; between segments the decoder skips to the next marker too."""

_JPEG_STARTS_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_END, _JPEG_START_OF_SCAN, _JPEG_APP1 = 0xD9, 0xDA, 0xE1


def _jpeg(data: bytes) -> Declared:
    """Walk the segments and scans to the end of the picture, as the decoder will (ITU-T T.81, annex B).

    To the end, because libjpeg itself paints grey what is missing and says nothing. What follows it is not looked
    at: telephones append films and previews.
    """
    size: tuple[int, int] | None = None
    exif, scans, at = b"", 0, 2
    for _ in range(MAX_SEGMENTS):
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            raise broken("a JPEG that is cut short")
        marker, at = data[found.end() - 1], found.end()
        if marker == _JPEG_END:
            if size is None or not scans:
                raise broken("a JPEG without a picture")
            return Declared("JPEG", *size, _orientation(exif))
        if marker < 0xC0:  # reserved, so nobody knows whether a length follows
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if marker in _JPEG_STARTS_OF_FRAME and size is None:
            rows, columns = struct.unpack_from(">HH", data, at + 3)
            size = columns, rows
        if marker == _JPEG_APP1 and not exif and data[at + 2 : at + 8] == b"Exif\0\0":
            exif = data[at + 8 : at + length]
        if marker == _JPEG_START_OF_SCAN:
            scans += 1
            if scans > MAX_JPEG_SCANS:
                raise broken(f"a JPEG of more than {MAX_JPEG_SCANS} scans")
        at += length
    raise broken(f"a JPEG of more than {MAX_SEGMENTS:,} segments")


def _png(data: bytes) -> Declared:
    """Read IHDR, and walk the chunks to IEND (ISO/IEC 15948)."""
    length, kind, columns, rows = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise broken("a PNG that does not begin with its header")
    exif, at = b"", 8
    for _ in range(MAX_SEGMENTS):
        if at + 12 > len(data):
            raise broken("a PNG that is cut short")
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            if length:  # OpenCV 5.0 makes room for it before it looks how much there is: 4 GB for 100 bytes
                raise broken("a PNG whose end declares content")
            return Declared("PNG", columns, rows, _orientation(exif))
    raise broken(f"a PNG of more than {MAX_SEGMENTS:,} chunks")


def _webp(data: bytes) -> Declared:
    """Read the first chunk of the container: VP8, VP8L or VP8X (RFC 9649); only after VP8X can EXIF follow."""
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise broken("a WebP that is cut short")
    kind = data[12:16]
    if kind == b"VP8 ":
        columns, rows = struct.unpack_from("<HH", data, 26)
        return Declared("WebP", columns & 0x3FFF, rows & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Declared("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        if len(data) < 30:
            raise broken("the header is cut short")
        columns, rows = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return Declared("WebP", columns, rows, _orientation(_webp_exif(data)))
    raise broken("a WebP that does not begin with a picture")


def _webp_exif(data: bytes) -> bytes:
    """Return the EXIF chunk's content, empty if there is none."""
    at = 12
    for _ in range(MAX_SEGMENTS):
        if at + 8 > len(data):
            return b""
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            return data[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0")
        at += 8 + length + length % 2
    raise broken(f"a WebP of more than {MAX_SEGMENTS:,} chunks")


def _bmp(data: bytes) -> Declared:
    """Read the information header (BITMAPCOREHEADER or BITMAPINFOHEADER and later)."""
    offset, header = struct.unpack_from("<II", data, 10)
    columns, rows = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    if offset > len(data):
        raise broken("a BMP that is cut short")
    return Declared("BMP", abs(columns), abs(rows))  # rows below zero: stored from the top
