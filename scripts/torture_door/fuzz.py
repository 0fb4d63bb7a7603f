"""Coverage-guided fuzzing of the two doors that take a stranger's bytes: forms, and pictures."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from torture_door.common import PHOTOS, corpus, form, progress, report

LONGEST_INPUT = 4096
"""Bytes of an input: a small picture or form of every kind fits, and a million are done in minutes."""

SEED_SIDE_PIXELS = 24
DOORS = ("form", "picture")
WORDS = {
    "form": (
        *("--b", "--b--", "\\x0d\\x0a", "Content-Disposition: form-data; name=", "filename=", "Content-Type: image/"),
        *("Content-Transfer-Encoding: base64", "charset=utf-7", "filename*=utf-8''", "image", "embedding", "fields[]"),
        *("feature_check", "replace_on_found", "new_person_threshold", "\\\\ud800", "NaN", "1e999", "%00", "null", "{"),
    ),
    "picture": (
        *(
            "\\xff\\xd8\\xff",
            "\\xff\\xda",
            "\\xff\\xc2",
            "\\xff\\xd9",
            "\\xff\\xe1",
            "Exif\\x00\\x00",
            "II*\\x00",
            "IHDR",
        ),
        *("MM\\x00*", "\\x89PNG\\x0d\\x0a\\x1a\\x0a", "IDAT", "IEND", "eXIf", "acTL", "fdAT", "iCCP", "RIFF", "WEBP"),
        *("VP8 ", "VP8L", "VP8X", "EXIF", "ALPH", "ANIM", "BM", "\\x7f\\xff\\xff\\xff", "\\xff\\xff\\xff\\xff"),
    ),
}
"""What the grammars are made of, as libFuzzer's dictionaries are written."""


def seeds(door: str) -> list[bytes]:
    """Return what the fuzzer begins with: sound inputs of every kind, and broken ones of the shared data."""
    small = pictures()
    if door == "picture":
        return [*small, *(path.read_bytes() for path in corpus("bad-images") if path.stat().st_size <= LONGEST_INPUT)]
    bodies = [
        b"\x00" + form(small[0], multi="true", feature_check="yaw").replace(b"edge-torture", b"b"),
        b'\x02{"image": "AAAA", "fields": ["a", "b"], "feature_check": [{"name": "yaw", "min": -1, "max": 2.5}]}',
        b'\x02{"embedding": [0.1, -2e-3], "list_id": "8bc56950-e6ac-11f1-b8f9-4149838eb53e", "multi": true}',
        b"\x03embedding=0.1%2C0.2&fields=a+b&fields%5B%5D=%C3%A9&replace_on_found=true&yaw=-3",
        b"\x80edge\n--edge\r\nContent-Disposition: form-data; name=yaw\r\n\r\n1\r\n--edge--\r\n",
    ]
    broken = [path.read_bytes() for path in corpus("bad-multipart") if path.stat().st_size < LONGEST_INPUT]
    return [*bodies, *(b"\x00" + body for body in broken)]


def pictures() -> list[bytes]:
    """Return a photo's middle, tiny, as each of the four formats, progressive and grey as well."""
    photo = cv2.imread(str(PHOTOS / "obama-1.jpg"))
    assert photo is not None
    tiny = np.asarray(cv2.resize(photo, (SEED_SIDE_PIXELS, SEED_SIDE_PIXELS), interpolation=cv2.INTER_AREA))
    grey = tiny[:, :, :1]
    kinds = (
        (".jpg", tiny, []),
        (".jpg", tiny, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]),
        (".jpg", grey, []),
        (".png", tiny, []),
        (".png", grey, [cv2.IMWRITE_PNG_BILEVEL, 1]),
        (".webp", tiny, [cv2.IMWRITE_WEBP_QUALITY, 60]),
        (".webp", tiny, [cv2.IMWRITE_WEBP_QUALITY, 101]),  # lossless
        (".bmp", tiny, []),
    )
    return [cv2.imencode(kind, pixels, flags)[1].tobytes() for kind, pixels, flags in kinds]


def run(door: str, count: int, folder: Path, seed: int) -> tuple[dict[str, object], list[str]]:
    """Fuzz one door; return its figures and what went wrong."""
    beginnings = folder / f"{door}-seeds"
    beginnings.mkdir()
    for number, data in enumerate(seeds(door)):
        (beginnings / str(number)).write_bytes(data)
    words = folder / f"{door}.dict"
    words.write_text("".join(f'"{word}"\n' for word in WORDS[door]))
    flags = [f"-runs={count}", f"-seed={seed}", f"-max_len={LONGEST_INPUT}", "-timeout=10", "-rss_limit_mb=2048"]
    flags += [f"-dict={words}", f"-artifact_prefix={folder}/{door}-", "-print_final_stats=1"]
    command = [sys.executable, str(Path(__file__).with_name("fuzz_target.py")), door, str(beginnings), *flags]
    progress(f"{door}: {count:,} executions from {len(list(beginnings.iterdir()))} seeds")
    started, told = time.monotonic(), ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stderr is not None
        for line in process.stderr:
            told = (told + line)[-20_000:]
            if re.match(r"#\d+\s+pulse", line):
                progress(f"{door}: {line.strip()}")
    seconds = time.monotonic() - started
    done = re.search(r"number_of_executed_units:\s*(\d+)", told)
    executed = int(done[1]) if done else 0
    violations = [] if process.returncode == 0 and executed >= count else [f"{door}: {told[-3000:]}"]
    peak = re.search(r"peak_rss_mb:\s*(\d+)", told)
    figures = {
        f"{door} executions": f"{executed:,}",
        f"{door} a second": round(executed / seconds),
        f"{door} peak MB": peak[1] if peak else "unknown",
    }
    return figures, violations


def main(arguments: list[str]) -> int:
    """Fuzz the doors, one after the other."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="executions of each door (default: 1,000,000)")
    parser.add_argument("--door", choices=DOORS, action="append", help="only this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where inputs that failed are kept")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {}
    violations: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edge-fuzz-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        for door in options.door or DOORS:
            found, wrong = run(door, options.count, folder, options.seed)
            figures |= found
            violations += wrong
    return report("fuzz", figures, violations)
