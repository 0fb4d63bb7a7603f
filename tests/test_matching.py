"""What a similarity is worth, and who a face is by it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge import matching
from edge.matching import Calibration, Ranked, ThresholdPolicy, Thresholds
from edge.types import Candidate, Embedding, OperatingPoint, Pack, Person, unit

ROWS = [
    OperatingPoint(0.5, 0.1),
    OperatingPoint(0.1, 0.2),
    OperatingPoint(0.001, 0.3),
    OperatingPoint(0.0001, 0.35),
    OperatingPoint(1e-6, 0.4),
]

FALLING_ROWS = (
    st.lists(
        st.tuples(st.floats(1e-9, 1), st.floats(-0.9, 1)),
        min_size=2,
        max_size=12,
        unique_by=(lambda row: round(math.log10(row[0]), 3), lambda row: round(row[1], 3)),
    )
    .map(lambda rows: list(zip(sorted((f for f, _ in rows), reverse=True), sorted(s for _, s in rows), strict=True)))
    .map(lambda rows: [OperatingPoint(fmr, similarity) for fmr, similarity in rows])
)


# --- the score ---


@pytest.mark.parametrize(
    ("fmr", "score"),
    [
        (0.1, 0.5),
        (0.01, 0.6),
        (0.001, 0.7),
        (0.0001, 0.8),
        (1e-5, 0.9),
        (1e-6, 1.0),
        (0.5, 0.430103),
        (0.003, 0.652288),
    ],
)
def test_the_shipped_pack_s_rows_score_as_documented(pack: Pack, fmr: float, score: float) -> None:
    (similarity,) = (row.similarity for row in pack.embedder.operating_points if row.fmr == fmr)
    assert Calibration(pack.embedder.operating_points).score(similarity) == pytest.approx(score, abs=1e-6)


@given(FALLING_ROWS)
def test_every_row_scores_by_its_false_match_rate(rows: list[OperatingPoint]) -> None:
    calibration = Calibration(rows)
    for row in rows:
        assert calibration.score(row.similarity) == pytest.approx(min(1.0, 0.4 - 0.1 * math.log10(row.fmr)))


def test_between_rows_the_score_is_linear_in_the_logarithm() -> None:
    calibration = Calibration(ROWS)
    assert calibration.score(0.25) == pytest.approx(0.6)  # half way from 1e-1 to 1e-3
    assert calibration.score(0.325) == pytest.approx(0.75)
    assert calibration.score(0.36) == pytest.approx(0.84)  # a fifth of the way from 1e-4 to 1e-6


def test_below_the_first_row_the_score_falls_to_nothing() -> None:
    calibration = Calibration(ROWS)
    first = calibration.score(0.1)
    assert calibration.score(-0.45) == pytest.approx(first / 2)
    assert calibration.score(-1) == 0
    assert calibration.score(-1.7) == 0


def test_above_the_last_row_it_rises_on_but_never_over_one() -> None:
    calibration = Calibration(ROWS[:3])
    assert calibration.score(0.35) == pytest.approx(0.8)
    assert calibration.score(0.45) == pytest.approx(1.0)
    assert calibration.score(0.46) == 1
    assert Calibration(ROWS).score(1.0) == 1


@given(FALLING_ROWS, st.floats(-2, 2), st.floats(-2, 2))
def test_who_is_more_alike_never_scores_less(rows: list[OperatingPoint], a: float, b: float) -> None:
    assume(a <= b)
    calibration = Calibration(rows)
    assert 0 <= calibration.score(a) <= calibration.score(b) + 1e-12 <= 1 + 1e-12


def test_what_is_not_a_number_is_nobody() -> None:
    assert Calibration(ROWS).score(math.nan) == 0
    assert Calibration(ROWS).score(math.inf) == 1
    assert Calibration(ROWS).score(-math.inf) == 0


def test_similarity_is_the_cosine_less_what_both_have_in_common_with_everybody() -> None:
    a = Embedding(np.array([1, 0], np.float32), 0.5)
    b = Embedding(np.array([0.6, 0.8], np.float32), 0.3)
    assert matching.similarity(a, b, 0.35) == pytest.approx(0.6 - 0.35 * 0.8)
    assert matching.similarity(a, b, 0.0) == pytest.approx(0.6)


# --- thresholds ---


@pytest.mark.parametrize(
    ("list_size", "rate", "threshold"),
    [
        (0, 0.01, 0.7),
        (1, 0.01, 0.7),
        (10, 0.01, 0.7),
        (20, 0.01, 0.4 + 0.1 * math.log10(2000)),
        (100, 0.01, 0.8),
        (1000, 0.01, 0.9),
        (10_000, 0.01, 1.0),
        (1_000_000, 0.01, 1.0),
        (1000, 0.1, 0.8),
        (1, 0.0001, 0.8),
        (5, 0.5, 0.7),
    ],
)
def test_an_automatic_threshold_follows_the_list_s_size(list_size: int, rate: float, threshold: float) -> None:
    assert matching.automatic_threshold(list_size, rate) == pytest.approx(threshold)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.floats(1e-6, 0.5))
def test_a_longer_list_is_never_judged_more_mildly(a: int, b: int, rate: float) -> None:
    assume(a <= b)
    assert 0.7 <= matching.automatic_threshold(a, rate) <= matching.automatic_threshold(b, rate) <= 1


def test_a_threshold_that_was_asked_for_does_not_follow_the_list() -> None:
    policy = ThresholdPolicy(match=0.55, uncertain=None, false_positive_rate=0.01)
    assert policy.at(0) == policy.at(1_000_000) == Thresholds(match=0.55, uncertain=0.55)


def test_without_one_the_list_s_size_decides() -> None:
    policy = ThresholdPolicy(match=None, uncertain=None, false_positive_rate=0.01)
    assert policy.at(3) == Thresholds(match=0.7, uncertain=0.7)
    assert policy.at(1000).match == pytest.approx(0.9)
    assert policy.at(1000).uncertain == policy.at(1000).match


def test_the_uncertain_band_lies_under_the_threshold() -> None:
    policy = ThresholdPolicy(match=None, uncertain=0.75, false_positive_rate=0.01)
    assert policy.at(1000) == Thresholds(match=pytest.approx(0.9), uncertain=0.75)
    assert policy.at(1) == Thresholds(match=0.7, uncertain=0.7)


# --- who it is ---


def candidate(name: str, similarity: float) -> Candidate:
    person = Person(name, "list", None, None, 0, 0, (), (), None, None, None)
    return Candidate(person, similarity)


def identified(
    *similarities: float, match: float = 0.7, uncertain: float = 0.7, margin: float = 0.0
) -> matching.Identification:
    candidates = [candidate(f"person {number}", similarity) for number, similarity in enumerate(similarities)]
    return matching.identify(candidates, Thresholds(match, uncertain, margin), Calibration(ROWS))


def test_the_best_candidate_at_the_threshold_is_who_it_is() -> None:
    # The rows' scores are not the round numbers to the last bit: take the threshold from one.
    exactly = Calibration(ROWS).score(0.3)
    found = identified(0.3, 0.2, match=exactly, uncertain=exactly)
    assert found.matched is not None
    assert found.matched.candidate.person.person_id == "person 0"
    assert found.matched.score == exactly
    assert found.uncertain is None


def test_just_below_it_is_nobody() -> None:
    found = identified(0.2999, 0.2)
    assert found.matched is None
    assert found.uncertain is None
    assert len(found.ranked) == 2


def test_in_the_band_it_may_be_somebody() -> None:
    found = identified(0.29, 0.28, match=0.7, uncertain=0.6)
    assert found.matched is None
    assert found.uncertain is not None
    assert found.uncertain.candidate.person.person_id == "person 0"
    assert found.uncertain.score == pytest.approx(0.68)


def test_below_the_band_it_is_nobody() -> None:
    found = identified(0.24, match=0.7, uncertain=0.6)
    assert found.matched is None
    assert found.uncertain is None


def test_an_empty_list_knows_nobody() -> None:
    assert identified() == matching.Identification(Thresholds(0.7, 0.7), (), None, None)


def test_every_candidate_is_ranked_with_a_score() -> None:
    found = identified(0.5, 0.35, 0.1)
    assert [ranked.score for ranked in found.ranked] == pytest.approx([1, 0.8, 0.430103])
    assert found.thresholds == Thresholds(0.7, 0.7)


def test_a_similarity_that_is_no_number_matches_nobody() -> None:
    assert identified(math.nan).matched is None


def test_a_face_that_fits_two_people_nearly_as_well_is_neither() -> None:
    found = identified(0.36, 0.355, 0.1, margin=0.1)
    assert found.matched is None
    assert found.uncertain is not None
    assert found.rival is not None
    assert found.uncertain.candidate.person.person_id == "person 0"
    assert found.rival.candidate.person.person_id == "person 1"


def test_beyond_the_margin_the_best_is_who_it_is() -> None:
    found = identified(0.375, 0.34, margin=0.1)
    assert found.matched is not None
    assert found.rival is None


def test_the_margin_counts_beyond_the_score_of_1_too() -> None:
    assert identified(0.60, 0.50, margin=0.1).matched is not None
    assert identified(0.60, 0.59, margin=0.1).rival is not None


def test_a_second_who_is_no_match_is_no_rival() -> None:
    assert identified(0.305, 0.299, margin=0.1).matched is not None


def test_without_a_margin_nobody_is_a_rival() -> None:
    assert identified(0.36, 0.36).matched is not None


# --- who it was said not to be ---


def rejected_candidate(name: str, similarity: float, nearest_negative: float | None) -> Candidate:
    person = Person(name, "list", None, None, 0, 0, (), (), None, None, None)
    return Candidate(person, similarity, nearest_negative)


@pytest.mark.parametrize(
    ("similarity", "nearest_negative", "is_somebody"),
    [
        (0.35, None, True),
        (0.35, 0.4, False),
        (0.35, 0.35, True),  # as like the person as what they are not
        (0.35, 0.34, True),  # more like the person
        (0.31, 0.32, False),
    ],
)
def test_a_face_nearer_to_what_a_person_is_not_is_not_them(
    similarity: float, nearest_negative: float | None, is_somebody: bool
) -> None:
    one = rejected_candidate("one", similarity, nearest_negative)
    found = matching.identify([one], Thresholds(0.7, 0.5), Calibration(ROWS))
    assert (found.matched is not None) == is_somebody
    assert [ranked.candidate for ranked in found.ranked] == ([one] if is_somebody else [])
    assert found.uncertain is None


def test_a_rejected_face_counts_only_where_it_would_match_itself() -> None:
    one = rejected_candidate("one", 0.25, 0.28)
    found = matching.identify([one], Thresholds(0.7, 0.5), Calibration(ROWS))
    assert found.uncertain is not None, "0.28 is under the threshold: another face, as far as anybody knows"


def test_the_next_one_takes_the_place_of_whom_it_is_not() -> None:
    candidates = [rejected_candidate("one", 0.35, 0.4), rejected_candidate("two", 0.345, None)]
    found = matching.identify(candidates, Thresholds(0.7, 0.7, margin=0.1), Calibration(ROWS))
    assert found.matched is not None
    assert found.matched.candidate.person.person_id == "two"
    assert found.rival is None


# --- strangers among themselves ---


SCORES = Calibration(ROWS)


def face(*coordinates: float, cohort_similarity: float = 0.0) -> Embedding:
    return Embedding(unit(np.array(coordinates)), cohort_similarity)


def test_every_two_faces_of_a_group_are_alike() -> None:
    """A row of faces, each like its neighbours: a chain of likeness does not make one person of the ends."""
    row = [face(np.cos(angle), np.sin(angle)) for angle in np.radians([0, 20, 40, 60, 80, 100])]
    found = matching.groups(row, float(np.cos(np.radians(41))), 0.0)
    assert sorted(place for group in found for place in group) == list(range(6))
    for group in found:
        assert all(row[a].vector @ row[b].vector >= np.cos(np.radians(41)) for a in group for b in group)
    assert len(found) < 6


def test_groups_are_those_of_merging_the_nearest_again_and_again() -> None:
    numbers = np.random.default_rng(5)
    people = numbers.normal(size=(6, 8))
    faces = [
        face(*(people[numbers.integers(6)] + numbers.normal(size=8) * 0.6), cohort_similarity=numbers.random())
        for _ in range(24)
    ]
    for least in (-0.5, 0.2, 0.5, 0.8, 2.0):
        near = np.array([[matching.similarity(a, b, 0.1) for b in faces] for a in faces])
        clusters = [[place] for place in range(24)]

        def between(a: list[int], b: list[int], near: Any = near) -> float:
            return float(near[np.ix_(a, b)].min())

        while len(clusters) > 1:
            best, a, b = max((between(x, y), x, y) for x in clusters for y in clusters if x is not y)
            if best < least:
                break
            clusters = [one for one in clusters if one not in (a, b)] + [sorted(a + b)]
        assert matching.groups(faces, least, 0.1) == sorted(clusters)


def test_nobody_makes_no_group_and_copies_one() -> None:
    assert matching.groups([], 0.5, 0.35) == []
    assert matching.groups([face(1, 0)], 0.5, 0.35) == [[0]]
    assert matching.groups([face(1, 0)] * 5 + [face(0, 1)], 0.5, 0.0) == [[0, 1, 2, 3, 4], [5]]


def test_a_score_has_the_least_similarity_that_reaches_it() -> None:
    for score in (0.0, 0.2, 0.4, 0.65, 0.7, 0.85, 1.0):
        assert SCORES.evidence(SCORES.similarity(score)) == pytest.approx(score, abs=1e-9)


def test_somebody_else_must_reach_the_threshold_and_lead_by_the_margin() -> None:
    thresholds = Thresholds(0.7, 0.7, 0.1)
    own, rival = SCORES.similarity(0.65), SCORES.similarity(0.8)

    def other(similarity: float) -> Ranked:
        found = candidate("b", similarity)
        return Ranked(found, SCORES.score(similarity))

    assert matching.is_somebody_else(own, other(rival), thresholds, SCORES)
    assert not matching.is_somebody_else(rival, other(own), thresholds, SCORES)
    assert not matching.is_somebody_else(own, None, thresholds, SCORES)
    assert not matching.is_somebody_else(SCORES.similarity(0.75), other(rival), thresholds, SCORES)
    assert not matching.is_somebody_else(0.0, other(SCORES.similarity(0.69)), thresholds, SCORES)
