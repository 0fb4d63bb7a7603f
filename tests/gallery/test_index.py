"""One index per list: exact and by graph give the same answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge.gallery import index as index_module
from edge.gallery.index import ListIndex
from edge.types import Embedding, unit

WEIGHT = 0.35
BIG = 1 << 40
"""Labels are 64-bit: nothing may cut them to 32."""


def vectors(count: int, length: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, length))
    return np.array([unit(row) for row in rows])


def expected(rows: dict[int, tuple[int, Embedding]], probe: Embedding, persons: int) -> list[tuple[int, float]]:
    """The definition, in plain Python."""
    best: dict[int, float] = {}
    for person, template in rows.values():
        cosine = float(probe.vector.astype(float) @ template.vector.astype(float))
        similarity = cosine - WEIGHT * (probe.cohort_similarity + template.cohort_similarity)
        best[person] = max(similarity, best.get(person, -9.0))
    return sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))[:persons]


def assert_same(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> None:
    assert [round(similarity, 5) for _, similarity in found] == pytest.approx(
        [round(similarity, 5) for _, similarity in wanted], abs=2e-5
    )
    for (person, similarity), (other, _) in zip(found, wanted, strict=True):
        if person != other:  # only where two differ by less than single precision can say
            assert any(abs(similarity - near) < 2e-6 for who, near in wanted if who == other)


def index_of(count: int, length: int = 16, exact_limit: int = 10**6, **more: Any) -> ListIndex:
    index = ListIndex(length, cohort_weight=WEIGHT, exact_limit=exact_limit, **more)
    if count:
        labels = list(range(BIG, BIG + count))
        index.add_many(labels, list(range(count)), vectors(count, length), np.zeros(count))
    return index


def test_an_empty_list_knows_nobody() -> None:
    index = index_of(0)
    assert index.search(vectors(1, 16)[0], 0.5, 3) == []
    assert len(index) == 0


def test_the_similarity_is_the_cosine_less_what_both_have_in_common_with_everybody() -> None:
    index = ListIndex(16, cohort_weight=WEIGHT, exact_limit=10)
    one, two = vectors(2, 16)
    index.add(BIG, 7, Embedding(one, 0.4))
    [(person, similarity)] = index.search(two, 0.6, 1)
    assert person == 7
    assert similarity == pytest.approx(float(one @ two) - WEIGHT * (0.4 + 0.6), abs=1e-6)


def test_a_person_counts_once_by_their_best_template() -> None:
    index = ListIndex(16, cohort_weight=WEIGHT, exact_limit=10)
    near, far, other = vectors(3, 16)
    index.add_many([1, 2, 3], [7, 7, 8], np.stack([far, near, other]), np.zeros(3))
    found = index.search(near, 0.0, 5)
    assert [person for person, _ in found] == [7, 8]
    assert found[0][1] == pytest.approx(1.0)


@pytest.mark.parametrize("count", [5, 500])
@pytest.mark.parametrize("falling", [False, True])
def test_ties_go_by_the_persons_number(count: int, falling: bool) -> None:
    index = ListIndex(16, cohort_weight=WEIGHT, exact_limit=10**6)
    same = np.repeat(vectors(1, 16), count, axis=0)
    index.add_many(list(range(count)), sorted(range(1, count + 1), reverse=falling), same, np.zeros(count))
    assert [person for person, _ in index.search(same[0], 0.0, 3)] == [1, 2, 3]


def test_one_person_with_most_of_the_templates_does_not_hide_the_others() -> None:
    rows = vectors(1000, 16)
    index = ListIndex(16, cohort_weight=WEIGHT, exact_limit=10**6)
    near = np.array([unit(rows[0] + 0.01 * row) for row in rows])
    index.add_many(list(range(1000)), [1] * 1000, near, np.zeros(1000))
    index.add_many([1001, 1002], [2, 3], rows[1:3], np.zeros(2))
    assert {person for person, _ in index.search(rows[0], 0.0, 3)} == {1, 2, 3}


def test_who_is_removed_is_not_found_and_is_not_left_in_memory() -> None:
    index = index_of(50)
    rows = vectors(50, 16)
    assert index.remove_persons([0, 20, 49, 1000]) == 3
    assert len(index) == 47
    for person in (0, 20, 49):
        assert index.search(rows[person], 0.0, 1)[0][0] != person
        assert rows[person].tobytes() not in index._matrix[:, :-1].tobytes()
    for person in (1, 19, 21, 48):
        assert index.search(rows[person], 0.0, 1)[0][0] == person


def test_above_the_limit_a_graph_answers_and_below_it_does_not() -> None:
    index = index_of(300, exact_limit=200)
    index.wait_until_built(60)
    assert index.has_graph
    rows = vectors(300, 16)
    assert [index.search(row, 0.0, 1)[0][0] for row in rows] == list(range(300))
    assert index.graph_searches == 300
    index.remove_persons(range(150, 300))
    assert not index.has_graph
    assert index.search(rows[3], 0.0, 1)[0][0] == 3
    assert index.graph_searches == 300


def test_searches_and_changes_go_on_while_the_graph_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, may_go_on = threading.Event(), threading.Event()
    add = index_module.Graph.add

    def slow(self: Any, labels: Any, rows: Any) -> None:
        begun.set()
        assert may_go_on.wait(60)
        add(self, labels, rows)

    monkeypatch.setattr(index_module.Graph, "add", slow)
    index = index_of(300, exact_limit=200)
    rows = vectors(600, 16)
    assert begun.wait(60)
    assert not index.has_graph
    assert index.search(rows[5], 0.0, 1)[0][0] == 5
    index.remove_persons(range(10, 20))
    index.add_many(list(range(2 * BIG, 2 * BIG + 100)), list(range(300, 400)), rows[300:400], np.zeros(100))
    may_go_on.set()
    index.wait_until_built(60)
    assert index.has_graph
    assert index.search(rows[15], 0.0, 1)[0][0] != 15
    assert all(index.search(rows[person], 0.0, 1)[0][0] == person for person in (0, 9, 20, 299, 300, 399))
    assert index.graph_searches >= 7


def test_a_full_graph_grows_where_it_is() -> None:
    index = index_of(300, exact_limit=200)
    index.wait_until_built(60)
    graph, capacity = index._graph, index._graph.capacity
    more = vectors(3000, 16, seed=1)
    for start in range(0, 3000, 100):
        labels = list(range(2 * BIG + start, 2 * BIG + start + 100))
        persons = list(range(1000 + start, 1100 + start))
        index.add_many(labels, persons, more[start : start + 100], np.zeros(100))
        assert index.search(more[start + 50], 0.0, 1)[0][0] == 1050 + start
    assert index.has_graph
    assert index._graph is graph
    assert graph.capacity > capacity
    assert all(index.search(more[i], 0.0, 1)[0][0] == 1000 + i for i in range(0, 3000, 37))
    assert index.graph_searches > 100


def test_a_graph_that_lost_a_third_is_built_anew() -> None:
    index = index_of(1000, exact_limit=200)
    index.wait_until_built(60)
    index.remove_persons(range(290))
    index.wait_until_built(60)
    assert index._graph.removed == 290
    index.remove_persons(range(290, 320))
    index.wait_until_built(60)
    assert index._graph.removed == 0
    assert index._graph.used == 680


def test_a_failed_build_leaves_exact_search(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(index_module.Graph, "add", lambda *_: 1 / 0)
    index = index_of(300, exact_limit=200)
    index.wait_until_built(60)
    assert "could not be built" in caplog.text
    assert index.search(vectors(300, 16)[7], 0.0, 1)[0][0] == 7


def test_recall_is_measured_by_exact_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(300, exact_limit=200, check_every=10)
    index.wait_until_built(60)
    rows = vectors(300, 16)
    for row in rows[:100]:
        index.search(row, 0.0, 1)
    assert (index.checked, index.agreed) == (10, 10)
    wrong = np.arange(BIG + 100, BIG + 300)
    monkeypatch.setattr(index._graph, "propose", lambda query, count: wrong)
    for row in rows[:50]:
        index.search(row, 0.0, 1)
    assert (index.checked, index.agreed) == (15, 10)


def test_closing_gives_up_what_is_being_built() -> None:
    index = index_of(20_000, length=64, exact_limit=200)
    index.close()
    assert index._builder is None
    assert not index.has_graph
    assert index.search(vectors(20_000, 64)[7], 0.0, 1)[0][0] == 7


def test_many_threads_may_search_and_change_it() -> None:
    index = index_of(400, exact_limit=300)
    rows, wrong = vectors(400, 16), []

    def search(start: int) -> None:
        for number in range(start, 200, 4):
            if index.search(rows[number], 0.0, 1)[0][0] != number:
                wrong.append(number)

    def change() -> None:
        for number in range(200, 400):
            index.remove_persons([number])
            index.add(2 * BIG + number, number, Embedding(rows[number], 0.0))

    threads = [threading.Thread(target=search, args=(start,)) for start in range(4)]
    threads.append(threading.Thread(target=change))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    index.close()
    assert wrong == []
    assert len(index) == 400


LENGTH = 8
EMBEDDINGS = st.builds(
    lambda seed, copies, cohort: Embedding(
        unit(np.random.default_rng(seed % (40 if copies else 10**9)).normal(size=8)), cohort
    ),
    st.integers(0, 10**9),
    st.booleans(),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
)


class BothKinds(RuleBasedStateMachine):
    """The same changes and searches on an exact index and on one with a graph, against the definition."""

    graph_searches = 0

    @initialize(seed=st.integers(0, 10**6), count=st.integers(30, 80))
    def fill(self, seed: int, count: int) -> None:
        self.exact = ListIndex(LENGTH, cohort_weight=WEIGHT, exact_limit=10**6)
        self.graph = ListIndex(LENGTH, cohort_weight=WEIGHT, exact_limit=20)
        self.rows: dict[int, tuple[int, Embedding]] = {}
        self.label, self.person = BIG, BIG
        for row in vectors(count, LENGTH, seed):
            self._add(self._new_person(), Embedding(row, 0.5))

    def _new_person(self) -> int:
        self.person += 1
        return self.person

    def _add(self, person: int, embedding: Embedding) -> None:
        self.label += 1
        self.rows[self.label] = (person, embedding)
        for index in (self.exact, self.graph):
            index.add(self.label, person, embedding)

    def _remove(self, person: int) -> None:
        self.rows = {label: row for label, row in self.rows.items() if row[0] != person}
        for index in (self.exact, self.graph):
            index.remove_persons([person])

    def _some_person(self, pick: int) -> int | None:
        persons = sorted({person for person, _ in self.rows.values()})
        return persons[pick % len(persons)] if persons else None

    @rule(embedding=EMBEDDINGS)
    def add(self, embedding: Embedding) -> None:
        self._add(self._new_person(), embedding)

    @rule(embedding=EMBEDDINGS, pick=st.integers(0, 10**6))
    def add_a_template(self, embedding: Embedding, pick: int) -> None:
        self._add(self._some_person(pick) or self._new_person(), embedding)

    @rule(pick=st.integers(0, 10**6), times=st.integers(1, 30))
    def remove(self, pick: int, times: int) -> None:
        for _ in range(times):
            person = self._some_person(pick)
            if person is not None:
                self._remove(person)

    @rule(embedding=EMBEDDINGS, pick=st.integers(0, 10**6))
    def replace(self, embedding: Embedding, pick: int) -> None:
        person = self._some_person(pick)
        if person is not None:
            self._remove(person)
            self._add(person, embedding)

    @rule()
    def let_it_be_built(self) -> None:
        self.graph.wait_until_built(60)

    @rule(embedding=EMBEDDINGS, persons=st.integers(1, 6))
    def search(self, embedding: Embedding, persons: int) -> None:
        wanted = expected(self.rows, embedding, persons)
        for index in (self.exact, self.graph):
            assert_same(index.search(embedding.vector, embedding.cohort_similarity, persons), wanted)

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "rows"):
            assert len(self.exact) == len(self.graph) == len(self.rows)

    def teardown(self) -> None:
        if hasattr(self, "graph"):
            type(self).graph_searches += self.graph.graph_searches
            self.graph.close()


@pytest.fixture
def counted() -> Iterator[None]:
    BothKinds.graph_searches = 0
    yield
    assert BothKinds.graph_searches > 50, "the property was hardly ever about a graph"


BothKinds.TestCase.settings = settings(
    max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.usefixtures("counted")
class TestBothKindsGiveTheSameAnswers(BothKinds.TestCase):
    pass
