"""Scores, thresholds, decisions: the only place where a threshold is applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.types import Candidate, Embedding, OperatingPoint

SCORE_AT_FMR_1 = 0.4
"""Score = 0.4 - 0.1 * log10(FMR): 0.7 is one false match in a thousand comparisons, and every 0.1 a factor of ten."""

SCORE_PER_DECADE = 0.1

LEAST_AUTOMATIC_THRESHOLD = 0.7
"""An automatic threshold never goes lower, however short the list: the contract's documented default."""


class Calibration:
    """What a pack's similarities mean: from the normalised similarity to the score and back."""

    def __init__(self, points: Sequence[OperatingPoint]) -> None:
        """`points`: FMR falling, similarity rising, at least two (the catalogue has checked it)."""
        self._similarities = [point.similarity for point in points]
        self._scores = [SCORE_AT_FMR_1 - SCORE_PER_DECADE * math.log10(point.fmr) for point in points]

    def score(self, similarity: float) -> float:
        """Return the score 0..1 of a normalised similarity; what is not a number scores 0."""
        return min(1.0, self.evidence(similarity))

    def evidence(self, similarity: float) -> float:
        """Return the score without its upper end, to tell apart two that are both beyond the table.

        Linear between the rows in log10(FMR). Below the first row it falls in a straight line to 0 at the similarity
        -1, which no two unit vectors are under; above the last it goes on as steeply as between the last two.
        """
        similarities, scores = self._similarities, self._scores
        if not similarity > similarities[0]:  # so that NaN comes here and not to the end of the table
            return max(0.0, scores[0] * (similarity + 1) / (similarities[0] + 1))
        at = 1
        while at < len(scores) - 1 and similarity > similarities[at]:
            at += 1
        share = (similarity - similarities[at - 1]) / (similarities[at] - similarities[at - 1])
        return scores[at - 1] + share * (scores[at] - scores[at - 1])

    def similarity(self, score: float) -> float:
        """Return the least normalised similarity that has this score, 0..1."""
        similarities, scores = self._similarities, self._scores
        if score <= scores[0]:
            return score / scores[0] * (similarities[0] + 1) - 1
        if score >= scores[-1]:
            share = (score - scores[-2]) / (scores[-1] - scores[-2])
            return similarities[-2] + share * (similarities[-1] - similarities[-2])
        return float(np.interp(score, scores, similarities))


def similarity(a: Embedding, b: Embedding, cohort_weight: float) -> float:
    """Return the normalised similarity: the cosine less what either face has in common with everybody."""
    return float(a.vector @ b.vector) - cohort_weight * (a.cohort_similarity + b.cohort_similarity)


def automatic_threshold(list_size: int, false_positive_rate: float) -> float:
    """Return the threshold at which a stranger matches anybody of `list_size` persons at that rate (0..1).

    A list of N persons is N comparisons, so the FMR must be the rate / N. Never under LEAST_AUTOMATIC_THRESHOLD,
    never over 1.
    """
    if list_size < 1:
        return LEAST_AUTOMATIC_THRESHOLD
    score = SCORE_AT_FMR_1 + SCORE_PER_DECADE * math.log10(list_size / false_positive_rate)
    return min(1.0, max(LEAST_AUTOMATIC_THRESHOLD, score))


@dataclass(frozen=True)
class Thresholds:
    """The scores that decide: at `match` a face is the person; from `uncertain` on it may be."""

    match: float
    uncertain: float
    margin: float = 0.0
    """By how much the evidence for the best person must exceed that for a second who reaches `match` as well."""


@dataclass(frozen=True)
class ThresholdPolicy:
    """What was asked for, scores 0..1. None: `match` follows the list's size, `uncertain` is the same as `match`."""

    match: float | None
    uncertain: float | None
    false_positive_rate: float
    margin: float = 0.0

    def at(self, list_size: int) -> Thresholds:
        """Return the thresholds for a list of that many persons."""
        match = self.match
        if match is None:
            match = automatic_threshold(list_size, self.false_positive_rate)
        return Thresholds(match, match if self.uncertain is None else min(self.uncertain, match), self.margin)


@dataclass(frozen=True)
class Ranked:
    """A candidate with their score."""

    candidate: Candidate
    score: float


@dataclass(frozen=True)
class Identification:
    """What the comparison with a list says of a face: the thresholds, all candidates, and who it is, if anybody."""

    thresholds: Thresholds
    ranked: tuple[Ranked, ...]
    matched: Ranked | None
    uncertain: Ranked | None
    rival: Ranked | None = None
    """The second of two people whom the face fits nearly as well: it is uncertain which of the two it is."""
    lead: float | None = None
    """By how much the evidence for the best exceeds that for the rival."""


def is_rejected(candidate: Candidate, thresholds: Thresholds, calibration: Calibration) -> bool:
    """Whether the face is one that was said not to be this person.

    It is if the two would match (the score at or over the threshold), and if it is more like that face than like the
    person: a rejected look-alike must not take the person's own faces away.
    """
    nearest = candidate.nearest_negative
    return candidate.is_disputed and nearest is not None and calibration.score(nearest) >= thresholds.match


def identify(candidates: Sequence[Candidate], thresholds: Thresholds, calibration: Calibration) -> Identification:
    """Decide who of the candidates (best first) the face is: somebody, nobody, or it cannot be said.

    Whom the face was said not to be is as if absent.
    """
    ranked = tuple(
        Ranked(candidate, calibration.score(candidate.similarity))
        for candidate in candidates
        if not is_rejected(candidate, thresholds, calibration)
    )
    if not ranked or ranked[0].score < thresholds.uncertain:
        return Identification(thresholds, ranked, matched=None, uncertain=None)
    best = ranked[0]
    if best.score < thresholds.match:
        return Identification(thresholds, ranked, matched=None, uncertain=best)
    if len(ranked) > 1 and ranked[1].score >= thresholds.match:
        first, second = (calibration.evidence(one.candidate.similarity) for one in ranked[:2])
        if first - second < thresholds.margin:
            return Identification(thresholds, ranked, None, uncertain=best, rival=ranked[1], lead=first - second)
    return Identification(thresholds, ranked, matched=best, uncertain=None)


def is_somebody_else(own: float, best_other: Ranked | None, thresholds: Thresholds, calibration: Calibration) -> bool:
    """Whether a face that is said to be a person is much more like somebody else.

    It is if the other one reaches the threshold and leads by the margin, as a match of theirs would. `own`: the
    similarity to the person themselves.
    """
    if best_other is None or best_other.score < thresholds.match:
        return False
    other = best_other.candidate.similarity
    return other > own and calibration.evidence(other) - calibration.evidence(own) >= thresholds.margin


# --- strangers among themselves ---


def groups(embeddings: Sequence[Embedding], least_similarity: float, cohort_weight: float) -> list[list[int]]:
    """Return the places of faces that are one person's as far as can be told, in groups; each place is in one.

    Complete linkage: any two faces of a group are at least so similar. Of the clips of five people before one camera,
    two of them look-alikes, mean similarities mixed those two into one group; this mixed nobody, and made 8 groups of
    229 faces. Followed along chains of nearest neighbours (Murtagh, 1983), which gives the same groups as merging the
    nearest pair again and again, in time and memory that grow with the square: 2,000 faces take 0.15 s and 16 MB. The
    same faces in the same order give the same groups.
    """
    if not embeddings:
        return []
    near = _similarities(embeddings, cohort_weight)
    members: dict[int, list[int]] = {place: [place] for place in range(len(embeddings))}
    done: list[list[int]] = []
    chain: list[int] = []
    while members:
        if not chain:
            chain.append(next(iter(members)))
        last = chain[-1]
        nearest = int(near[last].argmax())
        if len(chain) > 1 and near[last, chain[-2]] >= near[last, nearest]:
            nearest = chain[-2]
        if near[last, nearest] < least_similarity:
            done.append(sorted(members.pop(chain.pop())))
            near[last], near[:, last] = -np.inf, -np.inf
        elif len(chain) > 1 and nearest == chain[-2]:
            del chain[-2:]
            near[nearest] = near[:, nearest] = np.minimum(near[nearest], near[last])
            near[last], near[:, last] = -np.inf, -np.inf
            members[nearest] += members.pop(last)
        else:
            chain.append(nearest)
    return sorted(done)


def _similarities(embeddings: Sequence[Embedding], cohort_weight: float) -> NDArray[np.float32]:
    """Return everybody's normalised similarity to everybody else; to themselves, less than any."""
    vectors = np.stack([one.vector for one in embeddings]).astype(np.float32)
    common = np.array([cohort_weight * one.cohort_similarity for one in embeddings], np.float32)
    near = vectors @ vectors.T - common[:, None] - common[None, :]
    np.fill_diagonal(near, -np.inf)
    return np.asarray(near, np.float32)
