"""One peer of bench_peer.py, in a process and an environment of its own: no part of edge is imported here.

    python bench_peer_side.py KIND PHOTO KNOWN MODEL

KIND: face_recognition, or yunet-full or yunet-640 with the ONNX file MODEL. It encodes the face of PHOTO and has KNOWN
encodings in all, the others random. Then, for every path on standard input, it takes the picture from its bytes to who
it shows, and prints the milliseconds and whether it was that face.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import dlib
import face_recognition
import face_recognition_models
import numpy as np

TOLERANCE = 0.6
"""face_recognition's default distance up to which two faces are one person's."""

Encode = Callable[[bytes], "list[np.ndarray]"]


def by_face_recognition(data: bytes) -> list[np.ndarray]:
    """All defaults: HOG detector, upsampled once, five landmarks, no jitter."""
    picture = face_recognition.load_image_file(io.BytesIO(data))
    return face_recognition.face_encodings(picture, face_recognition.face_locations(picture))


def by_yunet(model: str, longest: int | None) -> Encode:
    """OpenCV's FaceDetectorYN with its defaults, on the picture as it is or shrunk; dlib's points and embedder."""
    detector = cv2.FaceDetectorYN.create(model, "", (320, 320), 0.9, 0.3)
    predictor = dlib.shape_predictor(face_recognition_models.pose_predictor_five_point_model_location())
    embedder = dlib.face_recognition_model_v1(face_recognition_models.face_recognition_model_location())

    def encode(data: bytes) -> list[np.ndarray]:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        scale = 1.0 if longest is None else longest / max(picture.shape[:2])
        small = picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        detector.setInputSize(small.shape[1::-1])
        _, found = detector.detect(small)
        rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        encodings = []
        for face in found if found is not None else ():
            left, top, width, height = (float(n) / min(scale, 1.0) for n in face[:4])
            box = dlib.rectangle(int(left), int(top), int(left + width), int(top + height))
            encodings.append(np.array(embedder.compute_face_descriptor(rgb, predictor(rgb, box))))
        return encodings

    return encode


def main() -> None:
    """Enrol, then answer."""
    kind, photo, count, model = sys.argv[1:]
    cv2.setNumThreads(1)
    encode: Encode = by_face_recognition
    if kind != "face_recognition":
        encode = by_yunet(model, 640 if kind == "yunet-640" else None)
    (mine,) = encode(Path(photo).read_bytes())
    others = np.random.default_rng(1).normal(size=(int(count) - 1, len(mine)))
    known = np.vstack([mine[None], others * np.linalg.norm(mine) / np.linalg.norm(others, axis=1, keepdims=True)])
    print("ready", flush=True)
    for line in sys.stdin:
        data = Path(line.strip()).read_bytes()
        started = time.perf_counter()
        is_known = any(
            int(np.argmin(distances)) == 0 and distances[0] <= TOLERANCE
            for distances in (face_recognition.face_distance(known, face) for face in encode(data))
        )
        print((time.perf_counter() - started) * 1000, int(is_known), flush=True)


if __name__ == "__main__":
    main()
