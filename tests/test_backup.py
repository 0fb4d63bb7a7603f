"""A backup holds all there is, no damage to it passes, and a restore is all or nothing."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import stat
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from box import NOW_MS, SETTINGS, add, automatic, back_up, fill, opened, state, tree

from edge import archive, backup, config, restoring
from edge.archive import Writer
from edge.errors import BackupUnusable, GalleryBroken, GalleryUnusable
from edge.gallery.access import Access
from edge.gallery.audit import Audit
from edge.types import Actor, ActOutcome

DATABASE = "gallery.sqlite3"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def saved(folder: Path, tmp_path: Path) -> Path:
    return back_up(folder, tmp_path / "saved.tar").path


def restored(path: Path, folder: Path) -> restoring.Restored:
    return restoring.restore(path, folder, now_ms=NOW_MS + 5000)


# --- there and back ---


def test_a_restored_box_is_the_same_record_by_record(tmp_path: Path) -> None:
    secret = fill(tmp_path / "data")
    made = back_up(tmp_path / "data", tmp_path / "saved.tar")
    assert (made.manifest.persons, made.manifest.templates, made.manifest.pictures) == (7, 7, 6)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    done = restored(made.path, tmp_path / "elsewhere")
    assert state(tmp_path / "elsewhere") == state(tmp_path / "data")
    assert done.aside is None
    assert done.settings.read_text() == SETTINGS
    access = Access(tmp_path / "elsewhere" / "access.sqlite3")
    assert access.find(secret, NOW_MS + 1) is not None
    with opened(tmp_path / "elsewhere") as gallery:
        assert (gallery.counts().persons, gallery.counts().set_aside, gallery.counts().pictures_missing) == (7, 0, 0)


def test_an_ordinary_tar_lists_it(saved: Path) -> None:
    with tarfile.open(saved) as tar:
        names = tar.getnames()
    assert names[-2:] == ["manifest.json", "manifest.sha256"]
    assert {DATABASE, "access.sqlite3", "keys.json", "edge.conf", "active-pack", "calibration/default.json"} < {*names}


def test_the_settings_in_it_are_those_in_force(tmp_path: Path) -> None:
    settings = config.load(Path(os.devnull), environment={}, flags=["server.port=9999", "models.pack=mine"])
    file = tmp_path / "edge.conf"
    file.write_text(config.as_text(settings))
    assert config.load(file, environment={}).texts == settings.texts


def test_what_was_there_is_set_aside_and_what_no_backup_holds_stays(folder: Path, saved: Path) -> None:
    before = state(folder)
    with opened(folder) as gallery:
        add(gallery, 50, b"somebody new")
    newer = state(folder)
    done = restored(saved, folder)
    assert state(folder) == before
    assert done.aside is not None
    assert state(done.aside) == newer
    assert (folder / "models" / "mine" / "pack.json").read_text() == "{}"
    assert not (folder / restoring.MOVING).exists()


def test_it_is_of_one_moment_while_four_threads_enrol(folder: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    with opened(folder) as gallery, ThreadPoolExecutor(4) as pool:
        work = [pool.submit(lambda n=n: acknowledged.append(add(gallery, n, b"jpeg %d" % n))) for n in range(100, 300)]
        work[60].result()
        before = {*acknowledged}
        made = back_up(folder, tmp_path / "saved.tar")
        for one in work:
            one.result()
    restored(made.path, tmp_path / "elsewhere")
    here, there = state(folder), state(tmp_path / "elsewhere")
    persons = {row[1]: row for row in there[DATABASE]["persons"]}
    assert before <= persons.keys()
    assert {*persons.values()} <= {*here[DATABASE]["persons"]}
    assert {*there[DATABASE]["templates"]} <= {*here[DATABASE]["templates"]}
    named = {row[7] for row in there[DATABASE]["templates"]} - {None}
    assert {name.removeprefix("pictures/")[3:-4] for name in there if name.startswith("pictures/")} == named
    assert all(here[name] == there[name] for name in there if name.startswith("pictures/"))


def test_who_is_erased_while_it_is_made_does_not_come_back(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as gallery:
        gone = [add(gallery, 60, b"erased"), add(gallery, 61)]

        def erase(done: int, total: int) -> None:
            if not done:
                gallery.delete_persons(gallery.main_list_id, gone)

        made = back_up(folder, tmp_path / "saved.tar", draw=erase)
    assert made.erased_meanwhile == 2
    assert made.manifest.persons == 7
    assert gone[0].encode() not in made.path.read_bytes()
    restored(made.path, tmp_path / "elsewhere")
    assert state(tmp_path / "elsewhere")[DATABASE]["persons"] == state(folder)[DATABASE]["persons"]


def test_who_is_fused_while_it_is_made_is_in_it(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as gallery:
        one, other = add(gallery, 60, b"one"), add(gallery, 61, b"other")

        def fuse(done: int, total: int) -> None:
            if not done:
                gallery.add_templates(gallery.main_list_id, one, [], replace_person_id=other)

        made = back_up(folder, tmp_path / "saved.tar", draw=fuse)
    assert (made.erased_meanwhile, made.manifest.persons, made.manifest.pictures) == (0, 9, 8)


def test_a_picture_that_is_not_there_stops_no_backup(folder: Path, tmp_path: Path) -> None:
    (missing,) = [*(folder / "pictures").rglob("*.jpg")][:1]
    missing.unlink()
    made = back_up(folder, tmp_path / "saved.tar")
    assert (made.manifest.persons, made.manifest.pictures) == (7, 5)
    restored(made.path, tmp_path / "elsewhere")
    with opened(tmp_path / "elsewhere") as gallery:
        assert (gallery.counts().persons, gallery.counts().pictures_missing) == (7, 0)


def test_no_file_is_written_over(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(BackupUnusable, match="is there already"):
        back_up(folder, tmp_path / "taken")
    with pytest.raises(BackupUnusable, match="there is no folder"):
        back_up(folder, tmp_path / "nowhere" / "saved.tar")
    with pytest.raises(GalleryUnusable, match="nothing to back up"):
        back_up(tmp_path, tmp_path / "saved.tar")
    assert (tmp_path / "taken").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["data", "taken"]


# --- damage ---


def refused_whole(path: Path, folder: Path, sentence: str = "backup") -> None:
    """The backup is refused by name, and the data folder is as it was."""
    before = tree(folder)
    with pytest.raises(BackupUnusable, match=sentence) as refusal:
        restored(path, folder)
    assert refusal.value.mistakes[0].reason
    assert tree(folder) == before


def members(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


def test_a_flipped_byte_anywhere_is_refused(saved: Path, folder: Path) -> None:
    whole = bytearray(saved.read_bytes())
    places = [len(whole) - 1]
    for member in members(saved):
        start, end = member.offset_data, member.offset_data + member.size
        places += [member.offset, member.offset + 130, start, (start + end) // 2, end - 1]
        places += [end] if end % 512 else []  # the filling after it
    assert len(places) > 60
    before = tree(folder)
    for place in places:
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            restored(saved, folder)
        except BackupUnusable as refusal:
            assert refusal.mistakes[0].reason
        else:
            pytest.fail(f"byte {place} does not count")
        assert tree(folder) == before, place


def test_a_file_cut_short_anywhere_is_refused(saved: Path, folder: Path) -> None:
    whole = saved.read_bytes()
    last = members(saved)[-1]
    for end in {0, 1, 511, 512, 700, last.offset, last.offset_data, last.offset_data + 5, last.offset_data + 512}:
        saved.write_bytes(whole[:end])
        refused_whole(saved, folder)


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04" + bytes(3000), os.urandom(5000), bytes(10240)):
        (tmp_path / "other").write_bytes(content)
        refused_whole(tmp_path / "other", folder)
    refused_whole(tmp_path / "nowhere", folder, "No such file")
    refused_whole(folder, folder, "cannot be read")


def with_member(saved: Path, name: str, **more: Any) -> None:
    """Put an entry before the others."""
    with tarfile.open(saved) as tar:
        kept = [(one, tar.extractfile(one).read()) for one in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(saved, "w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        content = more.pop("content", b"" if more else b"evil")
        info.size = len(content)
        for key, value in more.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(content))
        for one, data in kept:
            tar.addfile(one, io.BytesIO(data))


EVIL: dict[str, dict[str, Any]] = {
    "outside": {"name": "../evil"},
    "absolute": {"name": "/tmp/evil"},
    "hidden way out": {"name": "pictures/../../evil.jpg"},
    "unknown": {"name": "authorized_keys"},
    "picture in another's folder": {"name": f"pictures/ab/{'c' * 32}.jpg"},
    "link": {"name": "keys.json", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link": {"name": "keys.json", "type": tarfile.LNKTYPE, "linkname": "gallery.sqlite3"},
    "folder": {"name": "pictures", "type": tarfile.DIRTYPE},
    "device": {"name": "keys.json", "type": tarfile.CHRTYPE},
    "long name": {"name": "pictures/" + "a" * 200},
    "twice": {"name": "keys.json"},
    "not in the manifest": {"name": f"pictures/aa/{'a' * 32}.jpg"},
    "too large": {"name": f"pictures/aa/{'a' * 32}.jpg", "content": bytes((16 << 20) + 1)},
}


@pytest.mark.parametrize("member", EVIL.values(), ids=EVIL.keys())
def test_an_entry_that_has_no_place_is_refused(saved: Path, folder: Path, member: dict[str, Any]) -> None:
    with_member(saved, **member)
    refused_whole(saved, folder, "no plain file" if "type" in member or len(member["name"]) > 100 else member["name"])
    assert not (folder.parent / "evil").exists()


def test_not_even_a_manifest_that_names_it_lets_an_entry_out(saved: Path, folder: Path, tmp_path: Path) -> None:
    forged = rewritten(saved, tmp_path / "forged.tar", lambda entries: {"../evil": b"evil", **entries})
    refused_whole(forged, folder, "no place")
    assert not (folder.parent / "evil").exists()


def rewritten(saved: Path, path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> Path:
    """Write a backup anew, with a manifest that is right for what is in it."""
    with tarfile.open(saved) as tar:
        entries = {one.name: tar.extractfile(one).read() for one in tar.getmembers()}  # type: ignore[union-attr]
    del entries["manifest.json"], entries["manifest.sha256"]
    told = {"made": "x", "edge_version": "0", "persons": 0, "templates": 0, "pictures": 0, "pack_id": None, "packs": []}
    with path.open("wb") as file:
        writer = Writer(file, 0)
        for name, content in change(entries).items():
            writer.add_bytes(name, content)
        writer.finish(told)
    return path


def altered(tmp_path: Path, name: str, *statements: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Change the database in a backup."""

    def change(entries: dict[str, bytes]) -> dict[str, bytes]:
        file = tmp_path / "altered.sqlite3"
        file.write_bytes(entries[name])
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
        return {**entries, name: file.read_bytes()}

    return change


UNSOUND = {
    "newer": (DATABASE, "PRAGMA user_version = 99", "newer release .*99"),
    "newer access": ("access.sqlite3", "PRAGMA user_version = 99", "newer release .*99"),
    "no tables": (DATABASE, "PRAGMA user_version = 0", "holds no tables"),
    "orphans": (DATABASE, "DELETE FROM lists WHERE number = 1", "belongs to a row of lists that is gone"),
}


@pytest.mark.parametrize(("name", "statement", "sentence"), UNSOUND.values(), ids=UNSOUND.keys())
def test_a_database_that_is_not_sound_is_refused(
    saved: Path, folder: Path, tmp_path: Path, name: str, statement: str, sentence: str
) -> None:
    forged = rewritten(saved, tmp_path / "forged.tar", altered(tmp_path, name, "PRAGMA foreign_keys = OFF", statement))
    refused_whole(forged, folder, sentence)


def test_a_torn_database_or_none_is_refused(saved: Path, folder: Path, tmp_path: Path) -> None:
    def tear(entries: dict[str, bytes]) -> dict[str, bytes]:
        torn = bytearray(entries[DATABASE])
        torn[8192:16384] = os.urandom(8192)
        return {**entries, DATABASE: bytes(torn)}

    def drop(entries: dict[str, bytes]) -> dict[str, bytes]:
        return {name: content for name, content in entries.items() if name != DATABASE}

    refused_whole(rewritten(saved, tmp_path / "torn.tar", tear), folder, "gallery.sqlite3")
    refused_whole(rewritten(saved, tmp_path / "none.tar", drop), folder, "gallery.sqlite3 is missing")


def test_a_refused_backup_leaves_no_new_data_folder(saved: Path, tmp_path: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(BackupUnusable):
        restored(saved, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_nothing_is_restored_under_a_service(saved: Path, folder: Path) -> None:
    with opened(folder):
        with pytest.raises(GalleryUnusable, match="stop the service first"):
            restored(saved, folder)
        assert not (folder / restoring.UNFINISHED).exists()


class PowerCut(BaseException):
    pass


def test_a_restore_cut_off_at_any_rename_is_finished_by_the_next_start(
    saved: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = state(folder)
    with opened(folder) as gallery:
        add(gallery, 50, b"somebody new")
    (folder / "calibration" / "other.json").write_text("{}")
    newer = state(folder)
    cuts, ends = 0, set()
    while True:
        box = tmp_path / f"cut-{cuts}"
        shutil.copytree(folder, box)
        left = cuts
        for verb in ("rename", "replace"):
            real = getattr(Path, verb)

            def cut(self: Path, target: Path, *, real: Any = real) -> Path:
                nonlocal left
                if not left:
                    raise PowerCut
                left -= 1
                return real(self, target)  # type: ignore[no-any-return]

            monkeypatch.setattr(Path, verb, cut)
        try:
            restored(saved, box)
            finished = True
        except PowerCut:
            finished = False
        monkeypatch.undo()
        assert restoring.fault(box) is None
        ends.add(state(box) == wanted)
        assert state(box) in (wanted, newer)
        assert not (box / restoring.READY).exists() and not (box / restoring.MOVING).exists()
        if finished:
            break
        cuts += 1
    assert cuts > 10
    assert ends == {True, False}


# --- by itself ---


def test_as_many_are_kept_as_are_wanted_and_never_the_new_one_removed(folder: Path) -> None:
    made = [automatic(folder, keep=3, now_ms=NOW_MS + n * 1000) for n in range(5)]
    assert backup.kept(folder) == made[:1:-1]
    (folder / "backups" / "mine.tar").write_text("not made by --auto")
    back_in_time = automatic(folder, keep=1, now_ms=1000)
    assert backup.kept(folder) == [back_in_time]
    assert (folder / "backups" / "mine.tar").exists()


def test_a_gallery_that_cannot_be_read_back_takes_no_backup_away(folder: Path) -> None:
    kept = [automatic(folder, now_ms=NOW_MS + n) for n in range(2)]
    tear(folder)
    with pytest.raises((GalleryBroken, BackupUnusable)):
        automatic(folder, keep=1, now_ms=NOW_MS + 9)
    assert backup.kept(folder) == kept[::-1]
    assert sorted(os.listdir(folder / "backups")) == [path.name for path in kept]


def tear(folder: Path) -> None:
    content = bytearray((folder / DATABASE).read_bytes())
    for start in range(8192, len(content), 8192):
        content[start : start + 4096] = os.urandom(4096)
    (folder / DATABASE).write_bytes(content)


def unreference(folder: Path) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM lists WHERE number = 1")


BREAKS: dict[str, Callable[[Path], Any]] = {
    "garbage header": lambda folder: (folder / DATABASE).write_bytes(
        b"garbage instead " + (folder / DATABASE).read_bytes()[16:]
    ),
    "no database": lambda folder: (folder / DATABASE).write_bytes(b"not a database" * 1000),
    "torn pages": tear,
    "half": lambda folder: os.truncate(folder / DATABASE, (folder / DATABASE).stat().st_size // 2),
    "empty": lambda folder: os.truncate(folder / DATABASE, 0),
    "gone": lambda folder: (folder / DATABASE).unlink(),
    "references": unreference,
}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS.keys())
def test_a_broken_gallery_is_replaced_by_the_newest_sound_backup(
    folder: Path, break_it: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    automatic(folder, now_ms=NOW_MS)
    with opened(folder) as gallery:
        add(gallery, 50, b"jpeg")
    sound = automatic(folder, now_ms=NOW_MS + 1000)
    wanted = state(folder)
    newest = automatic(folder, now_ms=NOW_MS + 2000)
    newest.write_bytes(newest.read_bytes()[:-20000])
    access = Access(folder / "access.sqlite3")
    access.revoke(access.tokens()[0].token_id)
    break_it(folder)
    broken = (folder / DATABASE).read_bytes() if (folder / DATABASE).exists() else None

    reason = restoring.fault(folder)
    assert reason is not None
    made = restoring.restore_newest(folder, reason, now_ms=NOW_MS + 5000)

    assert restoring.fault(folder) is None
    assert sound.name.startswith("edge-20231114T221321.000Z")
    assert made == restoring.restored_from(folder) == "2023-11-14T22:13:21.000Z"
    there = state(folder)
    assert {**there, "access.sqlite3": None} == {**wanted, "access.sqlite3": None}
    assert access.tokens() == ()  # what was revoked since stays revoked
    (aside,) = folder.glob("gallery.sqlite3.broken-*")
    if broken is not None:
        assert (aside / DATABASE).read_bytes() == broken
    assert f"{newest.name}" in caplog.text
    assert "erase them again" in caplog.text
    assert restoring.acknowledge(folder)
    assert restoring.restored_from(folder) is None


@pytest.mark.parametrize("name", ["garbage header", "gone"])
def test_who_the_audit_log_says_to_be_erased_is_not_back_by_itself(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = state(folder)
    with opened(folder) as gallery:
        gone, listed = add(gallery, 50, b"jpeg"), gallery.create_list("left").list_id
        automatic(folder)
        gallery.delete_persons(gallery.main_list_id, [gone])
        gallery.delete_list(listed)
    log = Audit(folder, now_ms=NOW_MS)
    for action, outcome, ids in (
        ("/person/delete", ActOutcome.BEGUN, (("list_id", gallery.main_list_id), ("person_id", gone))),
        ("/person/list/delete", ActOutcome.DONE, (("list_id", listed),)),
        ("/person/list/delete", ActOutcome.REFUSED, (("list_id", gallery.main_list_id),)),
    ):
        log.note(Actor(action, None, "somebody", "", NOW_MS), outcome, ids)
    BREAKS[name](folder)
    reason = restoring.fault(folder)
    assert reason is not None
    restoring.restore_newest(folder, reason, now_ms=NOW_MS + 5000)
    there = state(folder)
    assert there[DATABASE]["persons"] == wanted[DATABASE]["persons"]
    assert {one for one in there if one.startswith("pictures/")} == {o for o in wanted if o.startswith("pictures/")}
    assert gone.encode() not in (folder / DATABASE).read_bytes()
    assert "but for 1 whom the audit log says to be erased since" in caplog.text
    with opened(folder) as gallery:
        assert (gallery.counts().persons, gallery.counts().pictures_missing) == (7, 0)


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS.keys())
def test_without_a_sound_backup_it_is_refused_again_and_again_and_nothing_is_touched(
    folder: Path, break_it: Callable[[Path], Any]
) -> None:
    automatic(folder).write_bytes(b"not a backup")
    break_it(folder)
    before = tree(folder)
    for _ in range(2):
        reason = restoring.fault(folder)
        assert reason is not None
        with pytest.raises(GalleryBroken, match=r"edge restore FILE.*To begin anew"):
            restoring.restore_newest(folder, reason, now_ms=NOW_MS)
    after = tree(folder)
    for suffix in ("-wal", "-shm"):  # SQLite's own, of having looked
        before.pop(DATABASE + suffix, None)
        after.pop(DATABASE + suffix, None)
    assert after == before


def test_a_broken_file_of_tokens_is_refused_with_a_sentence(folder: Path) -> None:
    automatic(folder)
    (folder / "access.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(GalleryBroken, match=r"access\.sqlite3 is damaged .*edge restore FILE"):
        restoring.fault(folder)


def test_a_new_folder_and_a_sound_one_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert restoring.fault(tmp_path / "new") is None
    before = state(folder)
    assert restoring.fault(folder) is None
    assert state(folder) == before


def test_every_entry_that_is_written_has_a_place(folder: Path, saved: Path) -> None:
    assert all(archive.limit_of(member.name) is not None for member in members(saved))
