"""Vectors: unit length, cheap for a probe and rich for a template, and two people that stay two."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge import matching
from edge.errors import PackUnusable
from edge.face.analysis import Analyser
from edge.face.embedding import PLAIN, Embedder, cohort_similarity
from edge.face.tflite import Model
from edge.matching import Calibration
from edge.types import Cohort, Embedding, InputSpec, Pack, Picture, Points

Floats = NDArray[np.float32]
Faces = dict[str, tuple[Picture, Points]]
Embeddings = dict[str, Embedding]


@pytest.fixture(scope="module")
def faces(analyser: Analyser, pictures: dict[str, Picture]) -> Faces:
    """Each photo with the mesh of its face."""
    found = {}
    for name, picture in pictures.items():
        size = (320, 192) if picture.shape[0] > picture.shape[1] else (192, 320)
        detection = analyser.detector.detect(picture, size)[0]
        found[name] = picture, analyser.mesh.locate(picture, detection).points
    return found


@pytest.fixture(scope="module")
def probes(analyser: Analyser, faces: Faces) -> Embeddings:
    return {name: analyser.embedder.probe(*face) for name, face in faces.items()}


@pytest.fixture(scope="module")
def templates(analyser: Analyser, faces: Faces) -> Embeddings:
    return {name: analyser.embedder.template(*face) for name, face in faces.items()}


@pytest.fixture(scope="module")
def network(pack: Pack, interpreter: str) -> Model:
    return Model(pack.embedder.file.path, pack.embedder.input, interpreter=interpreter)


def unit_vectors(rng: np.random.Generator, count: int, length: int) -> Floats:
    vectors = rng.normal(size=(count, length)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


# --- one vector ---


def test_every_vector_has_unit_length(probes: Embeddings, templates: Embeddings, pack: Pack) -> None:
    for embedding in (*probes.values(), *templates.values()):
        assert embedding.vector.shape == (pack.embedder.vector_length,)
        assert embedding.vector.dtype == np.float32
        assert np.linalg.norm(embedding.vector.astype(float)) == pytest.approx(1, abs=1e-6)


def test_a_probe_is_what_the_network_says_of_one_plain_crop(
    analyser: Analyser, network: Model, faces: Faces, probes: Embeddings
) -> None:
    crop = analyser.embedder.crop(*faces["obama-1"])
    assert crop.shape == (150, 150, 3)
    (output,) = network.run(crop)
    assert probes["obama-1"].vector == pytest.approx(output[0] / np.linalg.norm(output[0]), abs=1e-6)


def test_a_template_is_the_mean_of_the_pack_s_ten_crops(
    analyser: Analyser,
    network: Model,
    pack: Pack,
    faces: Faces,
    templates: Embeddings,
) -> None:
    assert len(pack.embedder.template_crops) == 10
    total = np.zeros(128)
    for variant in pack.embedder.template_crops:
        (output,) = network.run(analyser.embedder.crop(*faces["biden-1"], variant))
        total += output[0] / np.linalg.norm(output[0].astype(float))
    assert templates["biden-1"].vector == pytest.approx(total / np.linalg.norm(total), abs=1e-6)


def test_a_template_is_near_to_its_probe_but_not_the_same(probes: Embeddings, templates: Embeddings) -> None:
    for name, probe in probes.items():
        assert 0.98 < probe.vector @ templates[name].vector < 0.99999, name


def test_a_face_embeds_alike_every_time(analyser: Analyser, faces: Faces, probes: Embeddings) -> None:
    for name in ("obama-1", "biden-1", "obama-1"):
        again = analyser.embedder.probe(*faces[name])
        assert np.array_equal(again.vector, probes[name].vector)
        assert again.cohort_similarity == probes[name].cohort_similarity


# --- people ---


def person_of(name: str) -> str:
    return name.partition("-")[0]


def test_the_portraits_are_as_many_people_as_they_are(pack: Pack, probes: Embeddings, templates: Embeddings) -> None:
    cohort = pack.embedder.cohort
    assert cohort is not None
    calibration = Calibration(pack.embedder.operating_points)
    for probe_name, probe in probes.items():
        for template_name, template in templates.items():
            score = calibration.score(matching.similarity(probe, template, cohort.weight))
            if person_of(probe_name) == person_of(template_name):
                assert score >= 0.7, (probe_name, template_name)
            else:
                assert score < 0.6, (probe_name, template_name)


# --- how near a vector is to everybody ---


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.data())
def test_cohort_similarity_is_the_mean_of_the_nearest(seed: int, count: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    nearest = data.draw(st.integers(1, count))
    vectors = unit_vectors(rng, count, 8)
    (vector,) = unit_vectors(rng, 1, 8)
    plain = sum(sorted((float(v @ vector) for v in vectors), reverse=True)[:nearest]) / nearest
    assert cohort_similarity(vector, Cohort(vectors, nearest, 0.35)) == pytest.approx(plain, abs=1e-6)


def test_without_a_cohort_nobody_is_near_to_everybody() -> None:
    assert cohort_similarity(np.ones(4, np.float32), None) == 0.0


def test_an_embedding_brings_its_own_cohort_similarity(pack: Pack, probes: Embeddings) -> None:
    cohort = pack.embedder.cohort
    assert cohort is not None
    for probe in probes.values():
        plain = np.sort(cohort.vectors @ probe.vector)[-cohort.nearest :].mean()
        assert probe.cohort_similarity == pytest.approx(float(plain), abs=1e-6)


# --- a vector that a caller sends ---


def test_a_given_vector_is_scaled_to_unit_length(analyser: Analyser, templates: Embeddings) -> None:
    known = templates["obama-1"]
    given_back = analyser.embedder.given(known.vector * np.float32(7.5))
    assert given_back.vector == pytest.approx(known.vector, abs=1e-6)
    assert given_back.cohort_similarity == pytest.approx(known.cohort_similarity, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-20, float("nan"), float("inf"), float("-inf")])
def test_a_vector_without_a_direction_is_refused(analyser: Analyser, value: float) -> None:
    with pytest.raises(ValueError, match="has no direction"):
        analyser.embedder.given(np.full(128, value, np.float32))


def test_one_number_that_is_none_is_enough_to_refuse(analyser: Analyser) -> None:
    vector = np.ones(128, np.float32)
    vector[5] = np.nan
    with pytest.raises(ValueError, match="has no direction"):
        analyser.embedder.given(vector)


@given(length=st.floats(1e-10, 1e37))
def test_no_length_of_a_given_vector_is_too_small_or_too_large(analyser: Analyser, length: float) -> None:
    vector = analyser.embedder.given(np.full(128, length, np.float32)).vector
    assert np.linalg.norm(vector.astype(float)) == pytest.approx(1, abs=1e-6)


# --- the pack ---


def embedder_of(pack: Pack, network: Model, cohort: Cohort | None) -> Embedder:
    spec = pack.embedder
    return Embedder(
        network,
        template=spec.alignment,
        probe_crops=spec.probe_crops,
        template_crops=spec.template_crops,
        cohort=cohort,
    )


def test_a_cohort_of_another_length_makes_the_pack_unusable(pack: Pack, network: Model) -> None:
    cohort = pack.embedder.cohort
    assert cohort is not None
    longer = dataclasses.replace(cohort, vectors=np.ones((10, 256), np.float32))
    with pytest.raises(PackUnusable, match=r"returns \[\(1, 128\)\], its cohort has vectors of 256"):
        embedder_of(pack, network, longer)


def test_a_pack_without_a_cohort_works_without(pack: Pack, network: Model, faces: Faces, probes: Embeddings) -> None:
    probe = embedder_of(pack, network, None).probe(*faces["biden-1"])
    assert np.array_equal(probe.vector, probes["biden-1"].vector)
    assert probe.cohort_similarity == 0.0


def test_another_pack_s_input_is_its_own(pack: Pack, interpreter: str, test_data: Path, faces: Faces) -> None:
    """128 x 128, BGR, 256 numbers: the crop takes the network's size, not the default pack's."""
    spec = InputSpec(128, 128, "BGR", (0.0, 0.0, 0.0), 1.0)
    other = Model(test_data / "pack-reid-0095" / "embedder.tflite", spec, interpreter=interpreter)
    embedder = embedder_of(pack, other, None)
    assert embedder.crop(*faces["biden-1"], PLAIN).shape == (128, 128, 3)
    assert embedder.probe(*faces["biden-1"]).vector.shape == (256,)
