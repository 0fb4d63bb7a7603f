#!/usr/bin/env python3
"""Make the pack yunet: the detector YuNet in place of the default pack's, for faces far away.

    pip install -e '.[convert]'
    python scripts/build_yunet_pack.py yunet_n_640_640.onnx [--out DIR] [--extends default]
    edge models add DIR

YuNet (yunet_n) is by Shiqi Yu, Apache-2.0, published as ONNX in https://github.com/ShiqiYu/libfacedetection.train; any
of its input sizes will do, as the network is fully convolutional: its weights are read from the file and its graph is
described to TensorFlow anew for each size below. That takes five kinds of layer, and no converter whose next release
would do it another way. The vectors are the other pack's, so nobody has to be embedded again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIZES = ((192, 320), (320, 192), (384, 640), (640, 384))
"""(rows, columns): lying and upright. 192x320 is what the settings begin with; 384x640 finds 85 % of faces of a
fortieth of the picture's width, and at a third of it all (40 faces of LFW in frames of 1920x1080). Each divides by 32,
the largest stride."""

STRIDES = (8, 16, 32)

HEADS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
"""The outputs of each stride, in the order in which they are joined to 16 numbers a cell, and their lengths."""

TENSORFLOW_VERSION = "2.21"
"""As in build_models.py: another converter may write operators that tflite-runtime 2.14 refuses."""

SCORE_THRESHOLD = 0.6
IOU_THRESHOLD = 0.3
"""The score is low on purpose, and the landmarks' presence the judge: of 128 detections in 110 pictures (LFW and camera
frames) 124 were faces, and the others had a presence under 0.5. Suppression as in OpenCV's own FaceDetectorYN."""

LEAST_FACE_PIXELS, MOST_FACE_PIXELS = 15, 230
"""Longer side of a face in input pixels: 0.9 of 60 faces were found at 15, all from 24 up to the largest tried."""


class BuildError(Exception):
    """The pack cannot be made; the message says why."""


def import_tensorflow() -> Any:
    """Import TensorFlow, quietly."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    try:
        import tensorflow as tf  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise BuildError(f"TensorFlow is needed to convert ({error}): pip install -e '.[convert]'") from error
    if not tf.__version__.startswith(TENSORFLOW_VERSION + "."):
        raise BuildError(f"TensorFlow {tf.__version__} is installed, {TENSORFLOW_VERSION} is needed")
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tf


# --- the ONNX graph ---


def read(path: Path) -> Any:
    """Return the ONNX graph. Raises BuildError for a file that is none, or not of YuNet."""
    try:
        import onnx  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError as error:
        raise BuildError(f"onnx is needed to read the network ({error}): pip install -e '.[convert]'") from error
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own exceptions differ from release to release
        raise BuildError(f"{path} cannot be read as ONNX: {error}") from error
    outputs = {output.name for output in graph.output}
    if outputs != {f"{head}_{stride}" for head, _ in HEADS for stride in STRIDES}:
        raise BuildError(f"{path} is not YuNet: its outputs are {sorted(outputs)}")
    return graph


def attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes by name."""
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def weights(graph: Any) -> dict[str, Floats]:
    """Return the graph's constants by name."""
    import onnx

    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


# --- the same graph in TensorFlow: rows x columns x channels where ONNX has channels x rows x columns ---


def evaluate(tf: Any, graph: Any, picture: Any) -> list[Any]:
    """Describe the network to TensorFlow, from the picture to 1 x cells x 16 for each stride."""
    constants = weights(graph)
    values: dict[str, Any] = {graph.input[0].name: picture}
    for node in graph.node:
        values[node.output[0]] = layer(tf, node, values, constants)
    outputs = []
    for stride in STRIDES:
        joined = tf.concat([values[f"{head}_{stride}"] for head, _ in HEADS], axis=-1)
        _, rows, columns, numbers = joined.shape
        outputs.append(tf.reshape(joined, (1, rows * columns, numbers)))
    return outputs


def layer(tf: Any, node: Any, values: Mapping[str, Any], constants: Mapping[str, Floats]) -> Any:
    """Describe one node. Raises BuildError for one that YuNet does not have."""
    value = values[node.input[0]]
    if node.op_type == "Conv":
        bias = constants[node.input[2]]
        return tf.nn.bias_add(convolved(tf, value, constants[node.input[1]], attributes(node)), bias)
    if node.op_type == "Relu":
        return tf.nn.relu(value)
    if node.op_type == "Sigmoid":
        return tf.nn.sigmoid(value)
    if node.op_type == "Add":
        return value + values[node.input[1]]
    if node.op_type == "MaxPool" and attributes(node)["kernel_shape"] == attributes(node)["strides"] == [2, 2]:
        return tf.nn.max_pool2d(value, 2, 2, "VALID")
    if node.op_type == "Resize" and attributes(node)["mode"] == b"nearest":
        return tf.repeat(tf.repeat(value, 2, axis=1), 2, axis=2)
    if node.op_type in ("Transpose", "Reshape"):  # to rows x columns x channels, as it is here all along
        return value
    raise BuildError(f"a layer that YuNet does not have: {node.op_type} {attributes(node)}")


def convolved(tf: Any, value: Any, kernel: Floats, given: Mapping[str, Any]) -> Any:
    """Apply a convolution, plain or one channel at a time, padded alike on all sides."""
    stride, margin = given["strides"][0], given["pads"][0]
    groups, channels = given["group"], value.shape[-1]
    if len({*given["strides"]}) > 1 or len({*given["pads"]}) > 1 or {*given["dilations"]} != {1}:
        raise BuildError(f"a convolution that YuNet does not have: {dict(given)}")
    if margin and stride == 1:
        padding = "SAME"
    else:  # TensorFlow's SAME would pad a stride of two on one side alone
        padding = "VALID"
        value = tf.pad(value, [(0, 0), (margin, margin), (margin, margin), (0, 0)]) if margin else value
    if groups == 1:
        return tf.nn.conv2d(value, kernel.transpose(2, 3, 1, 0), stride, padding)
    if groups != channels or kernel.shape[:2] != (channels, 1):
        raise BuildError(f"a convolution in {groups} groups of {channels} channels")
    return tf.nn.depthwise_conv2d(value, kernel.transpose(2, 3, 0, 1), (1, stride, stride, 1), padding)


def convert(graph: Any, rows: int, columns: int) -> bytes:
    """Return the network for that input size as a TFLite file."""
    tf = import_tensorflow()

    def detect(picture: Any) -> Any:
        return evaluate(tf, graph, picture)

    traced = tf.function(detect).get_concrete_function(tf.TensorSpec((1, rows, columns, 3), tf.float32, name="picture"))
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([traced]).convert())


# --- the pack ---


def description(files: Mapping[tuple[int, int], bytes], extends: str, digest: str) -> str:
    """Return pack.json."""
    inputs = [
        {"file": name(size), "sha256": hashlib.sha256(content).hexdigest(), "rows": size[0], "columns": size[1]}
        for size, content in files.items()
    ]
    pack = {
        "format": 1,
        "name": "yunet" if extends == "default" else f"yunet-{extends}",
        "description": f"The detector YuNet, for faces far away; its other networks are those of {extends}.",
        "extends": extends,
        "detector": {
            "decoding": "yunet",
            "licence": "Apache-2.0",
            "source": f"libfacedetection.train, yunet_n, by Shiqi Yu; converted from ONNX of SHA-256 {digest}",
            "colour": "BGR",
            "mean": [0, 0, 0],
            "scale": 1,
            "score_threshold": SCORE_THRESHOLD,
            "iou_threshold": IOU_THRESHOLD,
            "least_face_pixels": LEAST_FACE_PIXELS,
            "most_face_pixels": MOST_FACE_PIXELS,
            "inputs": inputs,
        },
    }
    return json.dumps(pack, indent=2) + "\n"


def name(size: tuple[int, int]) -> str:
    """Return the file's name for an input size."""
    return f"detector-{size[0]}x{size[1]}.tflite"


NOTICE = """Model pack "yunet"

detector-*.tflite: YuNet (yunet_n), Copyright Shiqi Yu and the contributors of libfacedetection.train
(https://github.com/ShiqiYu/libfacedetection.train), Apache License 2.0.

CHANGED: converted from ONNX to TensorFlow Lite, for other input sizes, the outputs of each stride joined. The weights
are the same.

The other networks are those of the pack that this one extends; its own NOTICE says whose they are.
"""


def build(source: Path, out: Path, extends: str) -> None:
    """Convert and write the pack."""
    graph = read(source)
    files = {size: convert(graph, *size) for size in SIZES}
    out.mkdir(parents=True)
    for size, content in files.items():
        (out / name(size)).write_bytes(content)
    (out / "NOTICE").write_text(NOTICE, encoding="utf-8")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    (out / "pack.json").write_text(description(files, extends, digest), encoding="utf-8")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Make the pack yunet.")
    parser.add_argument("source", type=Path, metavar="ONNX", help="yunet_n_320_320.onnx or yunet_n_640_640.onnx")
    parser.add_argument("--out", type=Path, default=Path("yunet"), metavar="DIR", help="default: ./yunet")
    parser.add_argument("--extends", default="default", metavar="NAME", help="the pack that brings the other networks")
    arguments = parser.parse_args()
    try:
        build(arguments.source, arguments.out, arguments.extends)
    except (BuildError, OSError) as error:
        print(f"build_yunet_pack: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: `edge models add {arguments.out}` adds it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
