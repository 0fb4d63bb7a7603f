"""Picture files: each whole or not there, and none that no row names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import GalleryUnusable, StorageFull
from edge.gallery.pictures import Pictures


@pytest.fixture
def pictures(folder: Path) -> Pictures:
    return Pictures(folder / "pictures")


def test_what_is_saved_is_read_again(pictures: Pictures) -> None:
    names = pictures.save([b"one", b"two"])
    assert [pictures.read(name) for name in names] == [b"one", b"two"]


def test_names_are_random_and_files_are_private(pictures: Pictures, folder: Path) -> None:
    first, second = pictures.save([b"same", b"same"])
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{32}", first)
    path = folder / "pictures" / first[:2] / f"{first}.jpg"
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_saved_of_nothing(pictures: Pictures, picture_files: Callable[[], list[str]]) -> None:
    assert pictures.save([]) == []
    assert picture_files() == []


def test_file_and_folder_are_synced_before_the_name_is_given_out(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.save([b"the folder is there now"] * 300)
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append("fsync " + ("folder" if path.is_dir() else path.suffix))
        fsync(descriptor)

    def watched_rename(self: Path, target: Path) -> Path:
        events.append(f"rename {self.suffix} {target.suffix}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    pictures.save([b"one", b"two"])
    durable = ["fsync .new"] * 2 + ["rename .new .jpg"] * 2 + ["fsync folder"]
    assert events in (durable, ["fsync folder", *durable]), "a folder that is new is synced into its own"


def test_a_fault_leaves_none_of_them(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch, picture_files: Callable[[], list[str]]
) -> None:
    fsync, calls = os.fsync, iter(range(100))

    def full_at_the_second(descriptor: int) -> None:
        if not Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_dir() and next(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(StorageFull):
        pictures.save([b"one", b"two", b"three"])
    assert picture_files() == []


def test_what_is_deleted_is_gone_and_deleting_again_does_no_harm(
    pictures: Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    [name] = pictures.save([b"one"])
    pictures.delete([name])
    pictures.delete([name])
    assert pictures.read(name) is None
    assert caplog.records == []


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a" * 31, "a" * 33, "A" * 32, "é" * 32, "a" * 31 + "/"])
def test_a_name_that_is_none_reads_nothing(pictures: Pictures, name: str) -> None:
    assert pictures.read(name) is None


def test_a_name_does_not_lead_out_of_the_folder(pictures: Pictures, folder: Path) -> None:
    (folder.parent / "secret.jpg").write_bytes(b"secret")
    assert pictures.read("../../secret") is None
    assert pictures.read(f"{folder.parent}/secret") is None


def test_the_sweep_keeps_what_is_named_removes_the_rest_and_reports_what_is_missing(
    pictures: Pictures, folder: Path, picture_files: Callable[[], list[str]]
) -> None:
    kept, stray, lost = (pictures.save([content])[0] for content in (b"kept", b"stray", b"lost"))
    pictures.delete([lost])
    (folder / "pictures" / kept[:2] / f"{'0' * 32}.jpg.new").write_bytes(b"half")
    named = {kept, lost}
    missing = pictures.sweep(lambda prefix: [name for name in named if name.startswith(prefix)])
    assert missing == [lost]
    assert picture_files() == [f"{kept}.jpg"]
    assert pictures.read(stray) is None


def test_a_folder_that_cannot_be_listed_is_left_alone(pictures: Pictures, folder: Path) -> None:
    (folder / "pictures" / "ab").write_bytes(b"not a folder")
    assert pictures.sweep(lambda prefix: ["ab" + "0" * 30] if prefix == "ab" else []) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_bytes(b"not a folder")
    with pytest.raises(GalleryUnusable, match="cannot be made"):
        Pictures(tmp_path / "pictures")
