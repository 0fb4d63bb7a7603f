"""The only door to the interpreter: LiteRT, or its predecessor tflite-runtime where LiteRT has no wheel."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import Mistake, PackUnusable
from edge.types import InputSpec, Picture

INTERPRETERS = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
}
"""The choices of the setting `interpreter`, in the order of preference. LiteRT, TFLite's successor, measured 1.8 to 2.5
times faster on an AMD EPYC with AVX2, and about as fast on an Intel Xeon with AVX-512."""


def installed(choice: str = "auto") -> tuple[str, Callable[..., Any]]:
    """Return the name and class of the interpreter to use.

    `choice` is `auto` (the first that is installed) or a key of INTERPRETERS. Raises PackUnusable if it is not there.
    """
    for name, module in INTERPRETERS.items():
        if choice in ("auto", name):
            try:
                return name, importlib.import_module(module).Interpreter
            except ImportError:
                continue
    wanted = "ai-edge-litert or tflite-runtime" if choice == "auto" else choice
    raise PackUnusable(Mistake("models.interpreter", f"{wanted} is not installed; run scripts/setup"))


class Model:
    """One network with one picture-shaped input, float32. Not for two threads at once: each worker has its own."""

    def __init__(self, path: Path, spec: InputSpec, *, interpreter: str = "auto", threads: int = 1) -> None:
        """Load the file; PackUnusable if it is no model, or one with another input than `spec` says."""
        _, make = installed(interpreter)
        try:
            self._interpreter = make(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise PackUnusable(Mistake(path.name, f"is not a model that the interpreter can run: {error}")) from None
        inputs = self._interpreter.get_input_details()
        shape = (1, spec.rows, spec.columns, 3)
        if len(inputs) != 1 or tuple(inputs[0]["shape"]) != shape or inputs[0]["dtype"] != np.float32:
            raise PackUnusable(Mistake(path.name, f"takes {[tuple(i['shape']) for i in inputs]}, not {shape} float32"))
        self.spec = spec
        self._shape = shape[1:]
        # `tensor` gives a function that gives a view: the view must not be kept across an invoke.
        self._input: Callable[[], NDArray[np.float32]] = self._interpreter.tensor(inputs[0]["index"])
        self._outputs: list[int] = [output["index"] for output in self._interpreter.get_output_details()]
        self.output_shapes: list[tuple[int, ...]] = [
            tuple(int(n) for n in output["shape"]) for output in self._interpreter.get_output_details()
        ]
        # What each of the 256 values of each channel becomes: three times faster than computing it for every pixel.
        values = (np.arange(256)[:, None] - np.asarray(spec.mean)) / spec.scale
        self._normalised = values.astype(np.float32).reshape(256, 1, 3)

    def invoke(self) -> None:
        """Run the network on whatever its input holds: the bare cost, for benches."""
        self._interpreter.invoke()

    def run(self, picture: Picture) -> list[NDArray[np.float32]]:
        """Return the outputs (float32, shapes as `output_shapes`) for one RGB picture of the input's size."""
        if picture.shape != self._shape:  # OpenCV would write a picture of another size elsewhere, and say nothing
            raise ValueError(f"a picture of {picture.shape}; the input takes {self._shape}")
        pixels = picture if self.spec.colour == "RGB" else picture[:, :, ::-1]
        # Written in place: no second copy of the input, no allocation.
        cv2.LUT(pixels, self._normalised, dst=self._input()[0])
        self.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
