"""Claims about the index: it is complete after any fault, and has nothing twice."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import sqlite3
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postfix_archive.errors import ArchiveError, IndexFailed, IndexMissing
from postfix_archive.search import (
    archive_index,
    extraction,
    index_entry,
    index_file,
    index_lag,
    index_schema,
    index_service,
    indexer,
    look_up,
    search,
)
from postfix_archive.search.content import MessageContent
from postfix_archive.store import journal_reader, record_reader

from unit.examples import HR, LEGAL
from unit.kills import is_killed_at
from unit.search import corpus
from unit.search.index_helpers import catch_up, names_found, settings_of

FEW = corpus.MAILS[:8]
QUERIES = ("*", "contract", "bcc:secret", "outcome:delivered", "from:@example.org")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A store with eight mails, without an index."""
    store = tmp_path / "store"
    store.mkdir()
    for mail in FEW:
        mail.store_in(store)
    return store


@pytest.fixture
def copied(stored: Path, tmp_path: Path) -> Path:
    """A store with all mails and its index, to change."""
    shutil.copytree(stored, tmp_path / "store")
    shutil.copytree(f"{stored}-index", tmp_path / "store-index")
    return tmp_path / "store"


def databases(store: Path, archive: str = LEGAL) -> list[Path]:
    return sorted(Path(f"{store}-index/{archive}").glob("*.db"))


def answers(store: Path) -> dict[str, list[str]]:
    return {query: names_found(store, query) for query in QUERIES}


def row_counts(store: Path) -> dict[str, int]:
    """How many rows the tables have, which a message twice would change."""
    counts: dict[str, int] = {}
    for path in databases(store):
        db = sqlite3.connect(path)
        for table in ("message", "address_use", "label_use", "message_key", "address"):
            [count] = db.execute(f"SELECT count(*) FROM {table}").fetchone()
            counts[table] = counts.get(table, 0) + count
        db.execute("INSERT INTO message_text (message_text) VALUES ('integrity-check')")
        db.close()
    return counts


def test_there_is_a_database_for_each_archive_and_year(stored: Path) -> None:
    assert [each.name for each in databases(stored)] == ["2025.db", "2026.db"]
    assert [each.name for each in databases(stored, HR)] == ["2026.db"]


def test_a_killed_indexer_loses_nothing_and_adds_nothing_twice(few: Path) -> None:
    catch_up(few)
    expected, counts = answers(few), row_counts(few)
    shutil.rmtree(f"{few}-index")
    steps = kills = 0
    while True:
        steps += 17
        if not is_killed_at(steps, functools.partial(catch_up_in_small_steps, few)):
            break
        kills += 1
        if kills % 3 == 0:  # begin anew now and then, else go on where it was killed
            catch_up(few)
            assert answers(few) == expected
            assert row_counts(few) == counts
            shutil.rmtree(f"{few}-index")
            steps -= 13
    assert kills > 10
    assert answers(few) == expected
    assert row_counts(few) == counts


def catch_up_in_small_steps(store: Path) -> None:
    indexer.COMMIT_SECONDS = 0.0
    indexer.CHUNK_LINES = 2
    indexer.ADDED_SIZE = 300  # characters: of two messages, or of one
    catch_up(store)


@pytest.mark.parametrize(
    "harm", ["cut", "deleted", "overwritten", "empty", "version", "older"]
)
def test_a_harmed_database_is_built_again(copied: Path, harm: str) -> None:
    expected, counts = answers(copied), row_counts(copied)
    path = databases(copied)[-1]
    size = path.stat().st_size
    match harm:
        case "cut":
            os.truncate(path, size // 2)
        case "deleted":
            path.unlink()
        case "overwritten":
            path.write_bytes(b"\xff" * size)
        case "empty":
            os.truncate(path, 0)
        case "version":
            db = sqlite3.connect(path)
            db.execute("PRAGMA user_version = 99")
            db.close()
        case "older":
            restore_older(copied, path)
    found = search.Search(settings_of(copied), "*")
    names = {corpus.BY_ID[each.archive_id].name for each in found.hits()}
    if harm != "older":
        assert "2026: not searched" in found.notices[0]
        assert {"contract", "hr-offer"} <= names
    [warning] = catch_up(copied)
    assert str(path) in warning
    assert answers(copied) == expected
    assert row_counts(copied) == counts


STRUCTURE = "id = 10", "randomblob(length(block))"  # FTS5_STRUCTURE_ROWID
WORDS = "id > 10", "x'00'"  # FTS5 always notes that such a block is too short


def spoil_text(path: Path, blocks: str, content: str) -> None:
    """Overwrite the blocks of message_text that a condition names."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE message_text_data SET block = {content} WHERE {blocks}")
        assert db.execute("SELECT changes()").fetchone() > (0,)


def test_damage_that_opening_reads_is_mended_without_a_search(copied: Path) -> None:
    expected, counts = answers(copied), row_counts(copied)
    path = databases(copied)[-1]
    spoil_text(path, *STRUCTURE)
    [warning] = catch_up(copied)
    assert str(path) in warning
    assert answers(copied) == expected
    assert row_counts(copied) == counts


def test_damage_that_a_search_meets_is_mended(copied: Path) -> None:
    expected, counts = answers(copied), row_counts(copied)
    path = databases(copied)[-1]
    spoil_text(path, *WORDS)
    found = search.Search(settings_of(copied), "contract")
    assert {corpus.BY_ID[each.archive_id].name for each in found.hits()}
    assert "2026: not searched" in found.notices[0]
    assert "--rebuild" not in found.notices[0]
    [warning] = catch_up(copied)
    assert f"{path}: a search has found it damaged" in warning
    assert answers(copied) == expected
    assert row_counts(copied) == counts
    assert catch_up(copied) == []


def test_a_service_mends_what_a_search_meets(copied: Path) -> None:
    settings, warnings = settings_of(copied), list[str]()
    service = index_service.IndexService(settings, warnings.append, lambda *_: None)
    with contextlib.closing(service):
        service.run_once()
        index_file.mark_damaged(str(databases(copied)[-1]))
        service.run_once()
        assert len(warnings) == 1
        service.run_once()
    assert len(warnings) == 1


def restore_older(store: Path, path: Path) -> None:
    """Put a database as it was some mails ago in the place of the present one."""
    other = store.parent / "older"
    other.mkdir()
    for mail in corpus.MAILS[:30]:
        mail.store_in(other)
    catch_up(other)
    shutil.copy(f"{other}-index/{LEGAL}/{path.name}", path)


def test_a_lost_state_builds_all_again(copied: Path) -> None:
    expected = answers(copied)
    for text in ("", "{}", '{"version": 1, "position": 5}'):
        Path(f"{copied}-index/{LEGAL}/state.json").write_text(text)
        catch_up(copied)
        assert answers(copied) == expected


def test_an_index_of_an_older_version_is_built_again(copied: Path) -> None:
    expected, counts = answers(copied), row_counts(copied)
    for archive in (LEGAL, HR):
        state = Path(f"{copied}-index/{archive}/state.json")
        version = index_schema.VERSION
        older = f'"version": {version - 1}'
        state.write_text(state.read_text().replace(f'"version": {version}', older))
        for path in databases(copied, archive):
            with contextlib.closing(sqlite3.connect(path)) as db, db:
                db.execute(f"PRAGMA user_version = {version - 1}")
                db.execute("UPDATE message SET subject = 'of the older version'")
    with pytest.raises(IndexMissing, match="older version.*index --once"):
        search.Search(settings_of(copied), "contract")
    catch_up(copied)
    assert answers(copied) == expected
    assert row_counts(copied) == counts
    hits = search.Search(settings_of(copied), "*").hits()
    assert "of the older version" not in {each.subject for each in hits}


def test_another_journal_is_noticed(copied: Path) -> None:
    shutil.rmtree(copied)
    copied.mkdir()
    for mail in FEW[::-1]:
        mail.store_in(copied)
    [warning] = catch_up(copied)
    assert "the journal is another one" in warning
    assert {each for each in names_found(copied, "archive:legal*")} == {
        each.name for each in FEW
    }


def test_a_supplement_adds_its_recipients(few: Path) -> None:
    catch_up(few)
    assert names_found(few, "rcpt:late@example.com") == []
    corpus.supplement(FEW[0], "late@example.com").store_in(few)
    catch_up(few)
    assert names_found(few, "rcpt:late@example.com") == ["contract"]
    assert names_found(few, "bcc:late@example.com") == ["contract"]
    assert names_found(few, "bcc:bob@example.com") == []
    assert names_found(few, "rcpt:bob@example.com subject:contract") == ["contract"]
    counts = row_counts(few)
    shutil.rmtree(f"{few}-index")
    catch_up(few)
    assert row_counts(few) == counts


def test_a_removed_message_leaves_no_word(few: Path) -> None:
    catch_up(few)
    before = row_counts(few)
    extra = corpus.MAILS[20]  # French, with addresses of its own
    extra.store_in(few)
    catch_up(few)
    assert names_found(few, "réunion") == ["french"]
    path = journal_reader.path_of(str(few), LEGAL)
    index = archive_index.ArchiveIndex(f"{few}-index/{LEGAL}", path, print)
    record = record_reader.find_record(str(few), extra.archive_id, LEGAL)
    original = b"".join(record_reader.original(str(few), record))
    content = index_entry.from_content(extraction.extract(original))
    index.remove([extra.archive_id], {extra.archive_id: content}.__getitem__)
    *_, last_line = journal_reader.lines(path)
    index.commit(last_line)
    index.close()
    for query in ("réunion", "from:elodie", "sender:elodie", f"id:{extra.archive_id}"):
        assert names_found(few, query) == []
    assert row_counts(few) == before
    catch_up(few)
    assert names_found(few, "réunion") == []


def test_another_text_at_removal_builds_the_year_again(few: Path) -> None:
    catch_up(few)
    path = journal_reader.path_of(str(few), LEGAL)
    index = archive_index.ArchiveIndex(f"{few}-index/{LEGAL}", path, print)
    content = index_entry.from_content(indexer.NO_CONTENT)
    with pytest.raises(IndexFailed, match="another text"):
        index.remove([FEW[0].archive_id], lambda _: content)
    index.close()


def test_a_missing_or_damaged_copy_is_indexed_by_its_envelope(few: Path) -> None:
    lost, damaged = sorted(few.rglob("*.eml.gz"))[:2]
    lost.unlink()
    damaged.chmod(0o600)
    damaged.write_bytes(b"not gzip")
    catch_up(few)
    assert len(names_found(few, "*")) == len(FEW)
    assert len(names_found(few, "has:problem")) == 2
    assert len(names_found(few, "problem:copy sender:anna")) >= 1


def test_what_extraction_fails_on_is_found_by_its_problem(few: Path) -> None:
    def extract(original: bytes) -> MessageContent:
        content = extraction.extract(original)
        return content._replace(text="", problems=("pdf: encrypted",))

    catch_up(few, extract)
    assert len(names_found(few, "problem:encrypted")) == len(FEW)


def test_lines_that_are_torn_or_unknown_stop_nothing(few: Path) -> None:
    append_raw(few, b'{"seq":99,"time":"2026-01-01T00:00:00Z","event":"arch\n\n')
    FEW[0].store_in(few)
    corpus.MAILS[9].store_in(few)
    catch_up(few)
    assert len(names_found(few, "*")) == len(FEW) + 1


def append_raw(store: Path, content: bytes) -> None:
    path = Path(journal_reader.path_of(str(store), LEGAL))
    if path.is_dir():
        path = max(path.iterdir())
    with path.open("ab") as file:
        file.write(content)


def test_two_readers_and_a_writer_at_once(few: Path) -> None:
    catch_up(few)
    errors: list[Exception] = []
    is_done = threading.Event()

    def read() -> None:
        try:
            while not is_done.is_set():
                assert {*names_found(few, "subject:contract")} >= {"contract"}
                search.Search(settings_of(few), "*").count()
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for each in readers:
        each.start()
    for mail in corpus.MAILS[20:36]:
        mail.store_in(few)
        catch_up(few)
    is_done.set()
    for each in readers:
        each.join()
    if errors:
        raise errors[0]
    assert {each.archive for each in corpus.MAILS[20:36]} == {LEGAL}
    assert len(names_found(few, "*")) == 24


@pytest.mark.parametrize("has_log", [False, True])
def test_an_index_that_nobody_may_write_can_be_searched(
    stored: Path, has_log: bool
) -> None:
    """As another user in a directory without write permission."""
    # pytest's own directories are for one user.
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        check_as_another_user(stored, directory, has_log=has_log)
    finally:
        shutil.rmtree(directory)


def check_as_another_user(stored: Path, directory: Path, *, has_log: bool) -> None:
    copied = directory / "store"
    shutil.copytree(stored, copied)
    shutil.copytree(f"{stored}-index", f"{copied}-index")
    writer = None
    if has_log:  # a killed writer leaves the last transactions in -wal
        path = databases(copied)[-1]
        writer = sqlite3.connect(path)
        writer.execute(
            "UPDATE message SET subject = 'changed' WHERE archive_id LIKE '%'"
        )
        writer.commit()
        saved = {
            each: each.read_bytes() for each in path.parent.glob(f"{path.name}-wal")
        }
        assert saved
        content = path.read_bytes()
        writer.close()
        path.write_bytes(content)
        for each, log in saved.items():
            each.write_bytes(log)
    copied.parent.chmod(0o755)
    for each in [copied.parent, *copied.parent.rglob("*")]:
        each.chmod(0o555 if each.is_dir() else 0o444)
    before = {each: each.stat() for each in copied.parent.rglob("*")}
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = [*search.Search(settings_of(copied), "*").hits()]
            is_read = len(found) == len(corpus.MAILS)
            is_new = not has_log or found[0].subject == "changed"
            os._exit(0 if is_read and is_new else 1)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert {each for each in copied.parent.rglob("*")} == {*before}


@pytest.fixture
def public(stored: Path) -> Iterator[Path]:
    """A store with its index that all users may read; pytest's directories are not."""
    directory = Path(tempfile.mkdtemp(dir="/tmp"))
    shutil.copytree(stored, directory / "store")
    shutil.copytree(f"{stored}-index", directory / "store-index")
    for each in [directory, *directory.rglob("*")]:
        each.chmod(0o755 if each.is_dir() else 0o444)
    yield directory / "store"
    shutil.rmtree(directory)


def as_another_user(function: Callable[[], str]) -> str:
    """Return what a function returns to a user without rights, or its ArchiveError."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, function().encode())
        except ArchiveError as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def test_a_reader_who_meets_damage_is_told_to_rebuild(public: Path) -> None:
    spoil_text(databases(public)[-1], *WORDS)

    def notices() -> str:
        found = search.Search(settings_of(public), "contract")
        assert [*found.hits()]
        return "\n".join(found.notices)

    [notice] = as_another_user(notices).splitlines()
    assert "2026: not searched" in notice and "--rebuild" in notice


@pytest.mark.parametrize("place", ["store", "store-index"])
def test_who_may_not_read_is_told_so(public: Path, place: str) -> None:
    for archive in (LEGAL, HR):
        (public.parent / place / archive).chmod(0o750)
    settings = settings_of(public)
    text = as_another_user(lambda: str(search.Search(settings, "contract").archives))
    assert "Permission denied" in text and "archive_reader_group" in text
    assert "no index" not in text
    (public.parent / place / HR).chmod(0o755)
    text = as_another_user(lambda: str(search.Search(settings, "contract").notices))
    assert text.count("not searched") == 1 and "Permission denied" in text


def test_a_record_is_found_without_the_right_to_read_the_index(public: Path) -> None:
    (public.parent / "store-index").chmod(0o700)
    settings, mail = settings_of(public), FEW[0]
    find = functools.partial(look_up.find, settings, mail.archive_id)
    assert as_another_user(lambda: find().archive_id) == mail.archive_id


def test_a_full_disk_stops_indexing_and_not_reading(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up(few)
    for mail in corpus.MAILS[8:40]:
        mail.store_in(few)
    open_for_writing = index_file.open_for_writing

    def open_full(path: str) -> sqlite3.Connection:
        """SQLite's own limit of pages is the same to it as a full disk."""
        connection = open_for_writing(path)
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    monkeypatch.setattr(index_file, "open_for_writing", open_full)
    with pytest.raises(IndexFailed, match="full"):
        catch_up(few)
    assert "contract" in names_found(few, "contract")
    monkeypatch.undo()
    catch_up(few)
    assert len(names_found(few, "*")) == 40


def test_the_lag_is_what_the_journal_has_more(few: Path) -> None:
    settings = settings_of(few)
    assert index_lag.lag(settings, LEGAL).has_index is False
    catch_up(few)
    assert index_lag.lag(settings, LEGAL) == (True, 0, 0.0)
    corpus.MAILS[9].store_in(few)
    lag = index_lag.lag(settings, LEGAL)
    assert lag.size > 0
    assert lag.seconds > 0


@pytest.fixture(autouse=True)
def open_descriptors() -> Iterator[None]:
    """No test leaves a database open."""
    yield
    links = [
        os.path.realpath(f"/proc/self/fd/{each}")
        for each in os.listdir("/proc/self/fd")
    ]
    assert [each for each in links if each.endswith(index_file.SUFFIX)] == []


def test_an_archive_that_fails_keeps_no_other_from_being_indexed(few: Path) -> None:
    (few / "aaa@example.com").mkdir()
    (few / "aaa@example.com" / "journal").write_text("not a directory")
    settings = settings_of(few)
    service = index_service.IndexService(settings, print, lambda *_: None)
    with pytest.raises(ArchiveError, match="aaa@example.com"):
        service.run_once()
    service.close()
    found = search.Search(settings, "contract")
    assert len([*found.hits()]) == 2
    assert "aaa@example.com: not searched" in found.notices[0]
    assert "store format 1" in found.notices[0]


def test_a_missing_process_for_extraction_stops_indexing(few: Path) -> None:
    def fail(_: bytes) -> MessageContent:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with pytest.raises(IndexFailed, match="temporarily unavailable"):
        catch_up(few, fail)
    assert catch_up(few) == []
    assert len(names_found(few, "*")) == len(FEW)
