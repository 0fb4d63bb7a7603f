"""A pack's descriptions to networks that run: what a worker needs, built anew for each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import Mistake, PackUnusable
from edge.face.analysis import Analyser
from edge.face.detection import Detector
from edge.face.embedding import Embedder
from edge.face.landmarks import FaceMesh
from edge.face.passes import FaceRange
from edge.face.tflite import Model
from edge.types import DetectorSpec, EmbedderSpec, InputSpec, LandmarksSpec, ModelFile, Pack


@dataclass(frozen=True)
class Networks:
    """How networks are made: on which interpreter, and with how many threads each."""

    interpreter: str = "auto"
    threads: int = 1

    def analyser(self, pack: Pack) -> Analyser:
        """Return one worker's own set. Raises PackUnusable for what is no model, or not the one that is described."""
        return Analyser(self.detector(pack.detector), self.mesh(pack.landmarks), self.embedder(pack.embedder))

    def detector(self, spec: DetectorSpec) -> Detector:
        """Return the detector; each input size is loaded when it is first needed."""
        return Detector(
            {(input_.rows, input_.columns): self._loader(file, input_) for file, input_ in spec.inputs},
            decoding=spec.decoding,
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
            faces=FaceRange(spec.least_face_pixels, spec.most_face_pixels),
        )

    def mesh(self, spec: LandmarksSpec) -> FaceMesh:
        """Return the face mesh."""
        return FaceMesh(self._model(spec.file, spec.input), box_scale=spec.box_scale)

    def embedder(self, spec: EmbedderSpec) -> Embedder:
        """Return the embedder, whose vectors have the length that the pack says."""
        model = self._model(spec.file, spec.input)
        if [math.prod(shape) for shape in model.output_shapes] != [spec.vector_length]:
            reason = f"returns {model.output_shapes}, not one vector of {spec.vector_length} as pack.json says"
            raise PackUnusable(Mistake(spec.file.path.name, reason))
        return Embedder(
            model,
            template=spec.alignment,
            probe_crops=spec.probe_crops,
            template_crops=spec.template_crops,
            cohort=spec.cohort,
        )

    def _model(self, file: ModelFile, spec: InputSpec) -> Model:
        return Model(file.path, spec, interpreter=self.interpreter, threads=self.threads)

    def _loader(self, file: ModelFile, spec: InputSpec) -> Callable[[], Model]:
        return lambda: self._model(file, spec)
