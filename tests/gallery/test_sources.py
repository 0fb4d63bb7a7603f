"""Source groups and sources: known ones bring their defaults."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge.errors import ItemNotFound, ListNotFound
from edge.gallery.store import EmbeddedGallery
from edge.types import FeatureBound, ListAlert, SourceDefaults

Opening = Callable[..., EmbeddedGallery]


def test_a_source_keeps_its_defaults(open_gallery: Opening) -> None:
    gallery = open_gallery()
    group = gallery.create_group("ground floor")
    defaults = SourceDefaults(
        new_person_threshold=0.8,
        new_person_square_min=120,
        feature_check=(FeatureBound("eyes_open", least=0.5), FeatureBound("yaw")),
    )
    made = gallery.create_source("door", group.group_id, defaults, (gallery.main_list_id,), (gallery.main_list_id,))
    assert (made.defaults, made.group_id) == (defaults, group.group_id)
    gallery.close()
    assert open_gallery().source(made.source_id) == made


def test_a_source_may_bring_nothing(gallery: EmbeddedGallery) -> None:
    made = gallery.create_source("door")
    assert gallery.source(made.source_id) == made
    assert made.defaults == SourceDefaults()
    assert made.defaults.feature_check is None


def test_an_unknown_source_or_group_is_none(gallery: EmbeddedGallery) -> None:
    assert gallery.source("nothing") is None
    assert gallery.source(None) is None
    assert gallery.group("nothing") is None


def test_a_group_keeps_its_alerts_in_order(open_gallery: Opening) -> None:
    gallery = open_gallery()
    other = gallery.create_list("other").list_id
    alerts = (ListAlert(other, on_found={"mqtt": True}), ListAlert(gallery.main_list_id, on_failed=["x"]))
    made = gallery.create_group("ground floor", alerts)
    gallery.close()
    assert open_gallery().group(made.group_id) == made


def test_what_is_named_must_exist(gallery: EmbeddedGallery) -> None:
    with pytest.raises(ItemNotFound):
        gallery.create_source("door", "no group")
    with pytest.raises(ListNotFound):
        gallery.create_source("door", person_list_add=("no list",))
    with pytest.raises(ListNotFound):
        gallery.create_group("floor", (ListAlert("no list"),))
    counted = gallery.database.read().execute("SELECT (SELECT count(*) FROM groups), (SELECT count(*) FROM sources)")
    assert counted.fetchone() == (0, 0)
