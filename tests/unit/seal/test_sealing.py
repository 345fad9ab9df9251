"""Claims about sealing: what is sealed has a witness, and twice is once."""

from __future__ import annotations

import datetime
import email
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from smtp_peer import Peer

from postfix_archive.doctor import check_store, inspection
from postfix_archive.errors import LibraryMissing, TimeStampFailed
from postfix_archive.seal import delivery, seal_lag, sealing, time_stamp
from postfix_archive.store import known_end, verifier

import journal_lines
import tsa
from sample_store import ARRIVAL, LEGAL, SampleStore
from unit import kills
from unit.doctor.test_checks import STOCK

HR = "hr@example.com"


class SealedStore(SampleStore):
    """A store with two archives, and settings that say who witnesses its seals."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.add(b"Subject: one\r\n\r\n1\r\n")
        self.add(b"Subject: two\r\n\r\n2\r\n", archive=HR)

    def configure(self, **values: object) -> None:
        """Set these settings besides."""
        path = self.directory / "archive.cf"
        lines = [f"{name} = {value}\n" for name, value in values.items()]
        path.write_text(path.read_text() + "".join(lines))

    def seals(self) -> list[Path]:
        """Return the seals, oldest first."""
        return sorted((self.path / "seals").glob("*.json"))

    def seal_events(self, archive: str) -> list[str]:
        """Return the SHA-256 of the seals that a journal names."""
        events = journal_lines.events(self.path / archive)
        return [e["seal_sha256"] for e in events if e["event"] == "sealed"]

    def verify(self, *arguments: str, exit_code: int = 0) -> str:
        """Return what verify prints."""
        return self.run("verify", *arguments, exit_code=exit_code).output


@pytest.fixture(scope="module")
def shared_authority(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tsa.Authority]:
    with tsa.Authority(tmp_path_factory.mktemp("authority")) as authority:
        yield authority


@pytest.fixture
def authority(shared_authority: tsa.Authority) -> tsa.Authority:
    shared_authority.behaviour = "right"
    return shared_authority


@pytest.fixture
def store(tmp_path: Path) -> SealedStore:
    return SealedStore(tmp_path / "host")


@pytest.fixture
def stamped(store: SealedStore, authority: tsa.Authority) -> SealedStore:
    """A store whose seals are time-stamped; there is none yet."""
    store.configure(
        archive_tsa_url=authority.url, archive_tsa_certificates=authority.root
    )
    return store


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)


def fields(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_bytes()))


def test_a_seal_names_the_end_of_every_journal(stamped: SealedStore) -> None:
    stamped.run("show", "2026", exit_code=1)  # ambiguous: nothing is read
    output = stamped.run("seal").output
    [path] = stamped.seals()
    assert path.name in output and "time-stamped at" in output
    heads = {(e["archive"], e["journal"]): e for e in fields(path)["journals"]}
    assert len(heads) == 4
    for archive in (LEGAL, HR):
        segment, *_ = journal_lines.segments(stamped.path / archive)
        lines = segment.read_bytes().splitlines(keepends=True)[:2]
        head = heads[archive, "journal"]
        assert head["sha256"] == journal_lines.line_sha256(lines[1])
        assert (head["seq"], head["lines"]) == (2, 2)
        assert (head["start"], head["end"]) == (len(lines[0]), len(b"".join(lines)))
        assert head["segment"] == segment.name
        assert heads[archive, "access"]["end"] == 0
    assert "1 seal, " in stamped.verify("--seals")


def test_seals_are_chained_in_and_to_each_other(stamped: SealedStore) -> None:
    for number in range(3):
        stamped.run("seal")
        stamped.add(b"Subject: %d\r\n\r\nx\r\n" % number)
    digests = [
        verifier.parse_seal(e.name, e.read_bytes()).sha256 for e in stamped.seals()
    ]
    assert len(digests) == 3
    previous = [fields(each)["previous"] for each in stamped.seals()]
    assert previous == ["0" * 64, *digests[:2]]
    assert stamped.seal_events(LEGAL) == stamped.seal_events(HR) == digests
    stamped.verify("--seals")
    ends = known_end.read(str(stamped.directory / "fallback"), str(stamped.path))
    assert (ends["seals"].number, ends["seals"].sha256) == (3, digests[2])


def test_the_same_ends_are_not_sealed_twice(stamped: SealedStore) -> None:
    stamped.run("seal")
    for _ in range(2):
        assert "Nothing new since 000001-" in stamped.run("seal").output
    assert len(stamped.seals()) == len(stamped.seal_events(LEGAL)) == 1
    stamped.run("show", stamped.add(b"Subject: x\r\n\r\nx\r\n"))  # two journals grow
    stamped.run("seal")
    [access] = [
        each
        for each in fields(stamped.seals()[1])["journals"]
        if each["journal"] == "access" and each["archive"] == LEGAL
    ]
    assert access["lines"] == 2
    stamped.verify("--seals")


def test_torn_lines_and_later_segments_leave_a_seal_as_it_was(
    store: SealedStore, tmp_path: Path
) -> None:
    """Positions and numbers of lines count over all segments, with what is torn."""
    store.configure(archive_seal_file=tmp_path / "kept")
    for number in range(3):
        with open(journal_lines.segment(store.path / LEGAL), "ab") as file:
            file.write(b'{"seq":9,"time":"20')  # no line end: a crash has left it
        store.run("seal")
        month = ARRIVAL + (number + 12) * 31 * 86400  # later than the clock's
        store.add(b"Subject: %d\r\n\r\nx\r\n" % number, arrival=month)
        store.run("seal")
        head = max(fields(store.seals()[-1])["journals"], key=lambda each: each["end"])
        segments = journal_lines.segments(store.path / LEGAL)
        content = b"".join(each.read_bytes() for each in segments)
        line = content[head["start"] : head["end"]]
        assert head["sha256"] == journal_lines.line_sha256(line)
        assert head["lines"] == content[: head["end"]].count(b"\n")
        assert line in (store.path / LEGAL / "journal" / head["segment"]).read_bytes()
    assert len(segments) > 3
    store.verify("--seals")


def test_an_empty_store_is_sealed(stamped: SealedStore, tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "empty")
    store.path.joinpath("seals").mkdir()
    path = tmp_path / "empty" / "archive.cf"
    path.write_text(path.read_text() + f"archive_seal_file = {tmp_path}/seal-file\n")
    store.run("seal")
    assert "Nothing new" in store.run("seal").output
    assert "1 seal, " in store.run("verify").output
    assert len((tmp_path / "seal-file").read_bytes().splitlines()) == 1


def test_without_a_setting_the_command_says_so_and_the_timer_nothing(
    store: SealedStore,
) -> None:
    output = store.run("seal", exit_code=2).output
    assert "archive_tsa_url" in output and output.count("\n") == 1
    assert store.run("seal", "--if-configured").output == ""
    assert not (store.path / "seals").exists()


WRONG = {
    "nonsense": "not a time stamp",
    "empty": "not a time stamp",
    "refuses": "the authority refused: status 2",
    "other hash": "the time stamp is invalid",
    "other nonce": "the time stamp is invalid: Nonce mismatch",
    "other time": "differs from this host's clock by more than an hour",
    "status 500": "HTTP status 500",
    "redirects": "HTTP status 302",
    "hangs": "no reply in 0 s",
    "closes": "closed connection",
}


@pytest.mark.parametrize("behaviour", tsa.BEHAVIOURS[1:])
def test_a_wrong_answer_seals_nothing_and_the_next_run_tries_again(
    behaviour: str,
    stamped: SealedStore,
    authority: tsa.Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority.behaviour = behaviour
    if behaviour == "hangs":
        monkeypatch.setattr(time_stamp, "TIME_LIMIT", 0.2)
    output = stamped.run("seal", exit_code=1).output
    assert WRONG[behaviour] in output and authority.url in output
    assert output.count("\n") == 1
    assert stamped.seals() == [] and stamped.seal_events(LEGAL) == []
    authority.behaviour = "right"
    monkeypatch.undo()
    stamped.run("seal")
    assert fields(stamped.seals()[0])["number"] == 1
    stamped.verify("--seals")


def test_nobody_at_the_url_is_one_clear_line(
    stamped: SealedStore, tmp_path: Path
) -> None:
    with tsa.Authority(tmp_path / "gone") as gone:
        pass
    stamped.configure(archive_tsa_url=gone.url)
    output = stamped.run("seal", exit_code=1).output
    assert f"{gone.url}: Connection refused; check archive_tsa_url" in output


def test_an_expired_certificate_seals_nothing(
    store: SealedStore, tmp_path: Path
) -> None:
    yesterday = datetime.datetime.now(datetime.timezone.utc) - tsa.DAY
    with tsa.Authority(tmp_path / "authority", valid_until=yesterday) as authority:
        store.configure(
            archive_tsa_url=authority.url, archive_tsa_certificates=authority.root
        )
        output = store.run("seal", exit_code=1).output
    assert f"{authority.url}: the time stamp is invalid: certificate has" in output
    assert output.count("\n") == 1 and store.seals() == []


def test_an_authority_of_another_root_seals_nothing(
    stamped: SealedStore, tmp_path: Path
) -> None:
    other = tsa.Authority(tmp_path / "other")
    stamped.configure(archive_tsa_certificates=other.root)
    output = stamped.run("seal", exit_code=1).output
    assert "do its certificates lead to one in archive_tsa_certificates?" in output
    other._server.server_close()


def test_one_of_several_authorities_is_enough_with_a_warning(
    stamped: SealedStore, authority: tsa.Authority, tmp_path: Path
) -> None:
    with tsa.Authority(tmp_path / "gone") as gone:
        pass
    stamped.configure(archive_tsa_url=f"{gone.url}, {authority.url}")
    output = stamped.run("seal").output
    assert f"warning: {gone.url}: Connection refused" in output
    [reply] = (stamped.path / "seals").glob("*.tsr")
    assert reply.name.endswith(".2.tsr")
    stamped.verify("--seals")
    reply.unlink()
    assert "its time stamps are missing" in stamped.verify("--seals", exit_code=2)


@pytest.mark.parametrize(
    "content", [None, b"", b"-----BEGIN CERTIFICATE-----\n\n-----END"]
)
def test_a_file_without_certificates_is_one_clear_line(
    content: bytes | None, stamped: SealedStore, tmp_path: Path
) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    stamped.configure(archive_tsa_certificates=path)
    output = stamped.run("seal", exit_code=1).output
    assert f"{path}: no " in output and output.count("\n") == 1
    assert "archive_tsa_certificates" in output and stamped.seals() == []


def test_what_the_system_trusts_is_no_authority_of_ours(stamped: SealedStore) -> None:
    stamped.configure(archive_tsa_certificates="")
    output = stamped.run("seal", exit_code=1).output
    assert "archive_tsa_certificates" in output and output.count("\n") == 1


def test_a_reply_with_any_bit_changed_is_refused_or_says_the_same(
    authority: tsa.Authority,
) -> None:
    roots = time_stamp.load_roots(str(authority.root))
    stamp = time_stamp.request(authority.url, b"x", roots)
    refused = 0
    for position in range(len(stamp.reply)):
        changed = bytearray(stamp.reply)
        changed[position] ^= 1 << position % 8
        for reply in (bytes(changed), stamp.reply[:position]):
            try:
                assert time_stamp.check(reply, b"x", roots).time == stamp.time
            except TimeStampFailed:
                refused += 1
    # The rest is in no signature: versions, the name of the signature's algorithm.
    assert refused > 2 * len(stamp.reply) - 30


def test_without_the_library_the_command_says_what_to_install(
    stamped: SealedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    output = stamped.run("seal", exit_code=1).output
    assert LibraryMissing.__name__ in output
    assert "make install WITH=seal" in output
    stamped.verify()


def test_the_openssl_command_of_the_script_checks_the_signatures(
    stamped: SealedStore, authority: tsa.Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        stamped.add(b"Subject: %d\r\n\r\nx\r\n" % number)
        stamped.run("seal")
    assert verifier.main([str(stamped.path)]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    command = command.replace("ROOT.pem", shlex.quote(str(authority.root)))

    def run_command() -> str:
        process = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False
        )
        return process.stdout

    assert run_command().splitlines() == ["Verification: OK"] * 2
    path = stamped.seals()[0]
    path.write_bytes(path.read_bytes().replace(b'"seq":2', b'"seq":1'))
    assert "FAILED" in run_command()


# --- to a third party ----------------------------------------------------------------


def test_a_mailed_seal_has_the_bytes_of_the_seal(store: SealedStore) -> None:
    with Peer(lambda *_: "250 2.0.0 Ok: queued as 4Zx1SealMail") as peer:
        store.configure(
            archive_copy_address=f"127.0.0.1:{peer.port}",
            archive_seal_to="auditor@example.net",
        )
        store.run("seal")
        [taken] = peer.accepted_for("auditor@example.net")
    message = email.message_from_bytes(taken.content)
    _, text, attached = message.walk()
    [path] = store.seals()
    content = attached.get_payload(decode=True)
    assert content == path.read_bytes()
    assert attached.get_filename() == path.name
    digest = verifier.parse_seal(path.name, content).sha256
    assert f"\r\n{digest}\r\n" in text.get_payload() and message["Auto-Submitted"]
    [event] = [
        e for e in journal_lines.events(store.path / LEGAL) if e["event"] == "sealed"
    ]
    assert event["queued_as"] == "4Zx1SealMail"
    kept = store.directory / "kept"
    kept.write_bytes(content)
    store.verify("--seal-file", str(kept))
    assert "have no time stamp" in store.verify("--seals")


def test_a_seal_that_cannot_be_mailed_is_mailed_by_the_next_run(
    store: SealedStore,
) -> None:
    is_down = True
    with Peer(lambda *_: "451 4.3.0 no" if is_down else "250 2.0.0 Ok") as peer:
        store.configure(
            archive_copy_address=f"127.0.0.1:{peer.port}",
            archive_seal_to="auditor@example.net",
        )
        assert "451" in store.run("seal", exit_code=1).output
        assert store.seal_events(LEGAL) == []
        is_down = False
        store.run("seal")
        assert len(peer.accepted_for("auditor@example.net")) == 1
    assert len(store.seals()) == len(store.seal_events(LEGAL)) == 1


def test_what_fails_after_the_time_stamp_is_a_warning(
    stamped: SealedStore, tmp_path: Path
) -> None:
    stamped.configure(archive_seal_file=tmp_path / "none" / "kept")
    for number in range(2):
        assert "warning: 00000" in stamped.run("seal").output
        stamped.add(b"Subject: %d\r\n\r\nx\r\n" % number)
    assert len(stamped.seals()) == len(stamped.seal_events(LEGAL)) == 2


def test_a_file_has_one_seal_in_each_line(store: SealedStore, tmp_path: Path) -> None:
    path = tmp_path / "for the auditor"
    store.configure(archive_seal_file=path)
    for number in range(3):
        store.run("seal")
        store.add(b"Subject: %d\r\n\r\nx\r\n" % number)
    assert path.read_bytes() == b"".join(each.read_bytes() for each in store.seals())
    assert path.stat().st_mode & 0o777 == 0o644
    store.verify("--seal-file", str(path))
    settings = store.settings
    seal = verifier.read_seals(str(store.path))[0][-1]
    delivery.deliver(settings, seal, store.seals()[-1].read_bytes())
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize("place", ["{tmp_path}/none/file", "{tmp_path}", "/dev/full"])
def test_a_file_that_cannot_be_written_is_one_clear_line(
    store: SealedStore, tmp_path: Path, place: str
) -> None:
    store.configure(archive_seal_file=place.format(tmp_path=tmp_path))
    output = store.run("seal", exit_code=1).output
    assert "archive_seal_file" in output and output.count("\n") == 1
    assert store.seal_events(LEGAL) == []


def test_a_torn_line_in_a_kept_file_is_a_note_and_the_others_count(
    store: SealedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.configure(archive_seal_file=tmp_path / "kept")
    for number in range(3):
        store.run("seal")
        store.add(b"Subject: %d\r\n\r\nx\r\n" % number)
    first, second, third = (each.read_bytes() for each in store.seals())
    limit = 1 + max(map(len, (first, second, third)))
    monkeypatch.setattr(verifier, "SEAL_LIMIT", limit)  # of a line, not of the file
    path = tmp_path / "torn"
    path.write_bytes(first + second[:-9] + b"\n" + second + 3 * third[:-1] + b"\n")
    arguments = ("--seal-file", str(path))
    output = store.verify(*arguments)
    assert f"note: {path}, line 2: not a seal" in output
    assert f"note: {path}, line 4: not a seal" in output
    assert output.count("note") == 2
    assert verifier.main([*arguments, str(store.path)]) == 0
    path.write_bytes(path.read_bytes() + third.replace(b'"host":"', b'"host":"x'))
    assert "no such seal 3" in store.verify(*arguments, exit_code=2)
    assert verifier.main([*arguments, str(store.path)]) == 2


@pytest.mark.parametrize("content", [b"", b"x\n", b"{}\n", b"\xff" * 99, b"[]\n[]\n"])
def test_a_kept_file_that_is_no_seal_is_one_clear_line(
    store: SealedStore, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "kept").write_bytes(content)
    for path in (tmp_path / "kept", tmp_path / "none"):
        output = store.verify("--seal-file", str(path), exit_code=3)
        assert str(path) in output and output.count("\n") == 1
        assert verifier.main(["--seal-file", str(path), str(store.path)]) == 3


def test_a_seal_of_a_store_that_was_rolled_back_is_found_by_who_kept_it(
    store: SealedStore, tmp_path: Path
) -> None:
    path = tmp_path / "kept"
    store.configure(archive_seal_file=path)
    store.run("seal")
    kept = path.read_bytes()
    store.seals()[0].unlink()
    (store.directory / "fallback" / "journal-ends").unlink()
    store.run("seal")
    (tmp_path / "first").write_bytes(kept)
    output = store.verify("--seal-file", str(tmp_path / "first"), exit_code=2)
    assert "the store has no such seal 1" in output


def test_a_store_that_is_not_mounted_is_not_sealed(
    store: SealedStore, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    store.configure(archive_seal_file=kept)
    store.run("seal")
    content = kept.read_bytes()
    aside = store.path.with_name("aside")
    store.path.rename(aside)
    store.path.mkdir()
    output = store.run("seal", exit_code=1).output
    assert "mount the store" in output and output.count("\n") == 1
    assert kept.read_bytes() == content and list(store.path.iterdir()) == []
    store.path.rmdir()
    aside.rename(store.path)
    store.add(b"Subject: x\r\n\r\nx\r\n")
    store.run("seal")
    store.verify("--seal-file", str(kept))


def test_a_seal_that_is_made_while_verify_runs_is_no_error(
    store: SealedStore, tmp_path: Path
) -> None:
    store.configure(archive_seal_file=tmp_path / "kept")
    seals = verifier.read_seals(str(store.path))[0]
    store.run("seal")
    results = {
        each: verifier.verify_archive(str(store.path / each)) for each in (LEGAL, HR)
    }
    assert verifier.check_seals(str(store.path), results, seals) == []
    path = store.seals()[0]
    path.write_bytes(path.read_bytes().replace(b'"host":"', b'"host":"x'))
    findings = verifier.check_seals(str(store.path), results, seals)
    assert ["is missing or changed" in each.problem for each in findings] == [True] * 2


# --- what stands no more -------------------------------------------------------------


def test_a_store_that_lost_lines_is_sealed_and_the_loss_named(
    stamped: SealedStore,
) -> None:
    stamped.add(b"Subject: x\r\n\r\nx\r\n")
    stamped.run("seal")
    segment, *later = journal_lines.segments(stamped.path / LEGAL)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:2]))
    for each in later:
        each.unlink()
    output = stamped.run("seal", exit_code=1).output
    assert f"{LEGAL}/journal: line 3 is missing" in output
    assert len(stamped.seals()) == 2
    assert "sealed by 000001-" in stamped.verify("--seals", exit_code=2)


def test_the_time_stamp_of_a_seal_that_was_removed_stays(stamped: SealedStore) -> None:
    stamped.run("seal")
    [reply] = (stamped.path / "seals").glob("*.tsr")
    stamped.seals()[0].unlink()
    stamped.run("seal", exit_code=1)
    assert reply.exists() and stamped.seals()[0].name.startswith("000002-")
    assert f"{reply.name}: of no seal" in stamped.verify(exit_code=2)


def test_a_seal_that_was_antedated_and_stamped_again_is_named(
    stamped: SealedStore, authority: tsa.Authority
) -> None:
    """Anybody can have a time stamp of now, of anything."""
    stamped.run("seal")
    [path] = stamped.seals()
    content = path.read_bytes().replace(b'"time":"2', b'"time":"1', 1)
    roots = time_stamp.load_roots(str(authority.root))
    stamp = time_stamp.request(authority.url, content, roots)
    for file, new in ((path, content), (path.with_suffix(".1.tsr"), stamp.reply)):
        file.chmod(0o600)
        file.write_bytes(new)
    assert "not when the seal was made" in stamped.verify("--seals", exit_code=2)


def test_a_key_that_came_after_the_seal_is_named(stamped: SealedStore) -> None:
    stamped.run("seal")
    path = stamped.directory / "archive.key"
    path.write_text(path.read_text() + f"k2027 {bytes(range(1, 33)).hex()}\n")
    assert "note: " in stamped.verify("--seals")
    path.write_text(f"k2026 {bytes(range(1, 33)).hex()}\n")
    output = stamped.verify("--seals", exit_code=2)
    assert "key k2026 is another one" in output


def test_a_key_that_was_exchanged_between_two_seals_is_named(
    stamped: SealedStore,
) -> None:
    """The seal of the next night has the new one: those before have the old one."""
    path = stamped.directory / "archive.key"
    for number in range(3):
        stamped.run("seal")
        stamped.add(b"Subject: %d\r\n\r\nx\r\n" % number)
        path.write_text(f"k2026 {bytes(range(1, 33)).hex()}\n")
    output = stamped.verify("--seals", exit_code=2)
    assert "key k2026 is another one at 000002-" in output
    assert output.count("ERROR") == 1


def test_a_stamp_with_a_root_that_is_trusted_no_more_names_the_root(
    stamped: SealedStore, authority: tsa.Authority, tmp_path: Path
) -> None:
    stamped.run("seal")
    other = tsa.Authority(tmp_path / "other")
    other._server.server_close()
    roots = tmp_path / "roots.pem"
    roots.write_bytes(other.root.read_bytes())
    stamped.configure(archive_tsa_certificates=roots)
    output = stamped.verify("--seals", exit_code=2)
    assert "valid with the root CN=Test root in 000001-" in output
    assert "no longer in archive_tsa_certificates" in output
    [certificates] = (stamped.path / "seals").glob("*.pem")
    overwrite(certificates, roots.read_bytes())
    assert "the time stamp is invalid" in stamped.verify("--seals", exit_code=2)
    roots.write_bytes(roots.read_bytes() + authority.root.read_bytes())
    stamped.verify("--seals")


def test_seals_after_the_last_time_stamp_are_an_error_where_there_is_an_authority(
    store: SealedStore, authority: tsa.Authority, tmp_path: Path
) -> None:
    store.configure(archive_seal_file=tmp_path / "kept")
    store.run("seal")
    assert "note: " in store.verify("--seals")
    store.configure(
        archive_tsa_url=authority.url, archive_tsa_certificates=authority.root
    )
    output = store.verify("--seals", exit_code=2)
    assert "ERROR" in output and "run postfix-archive seal" in output
    store.run("seal")
    output = store.verify("--seals")
    assert "1 seals have no time stamp" in output
    assert "2 seals, 1 with time stamps, " in output


def test_a_file_that_is_named_like_a_time_stamp_is_none(stamped: SealedStore) -> None:
    stamped.run("seal")
    [reply] = (stamped.path / "seals").glob("*.tsr")
    for number in ("0", "2", "9", "1.1", "01", ""):
        other = reply.with_name(reply.name.replace(".1.", f".{number}."))
        reply.rename(other)
        output = stamped.verify(exit_code=2)
        assert "its time stamps are missing" in output
        assert f"{other.name}: of no seal" in output
        assert verifier.main([str(stamped.path)]) == 2
        other.rename(reply)
    stamped.verify("--seals")


# --- killed --------------------------------------------------------------------------


def is_killed_at(store: SealedStore, step: int) -> bool:
    """Seal in a process that is killed before its step-th change of a file."""
    settings = store.settings
    return kills.is_killed_at(
        step, lambda: sealing.run(settings, lambda _: None), only_changes=True
    )


def check_end(store: SealedStore, kept: Path) -> None:
    """All that was sealed is delivered and recorded once, and nothing is left over."""
    store.run("seal")
    contents = [each.read_bytes() for each in store.seals()]
    digests = [verifier.parse_seal("", each).sha256 for each in contents]
    assert store.seal_events(LEGAL) == store.seal_events(HR) == digests
    assert kept.read_bytes() == b"".join(contents)
    assert "note" not in store.verify("--seal-file", str(kept))


def test_a_killed_run_is_completed_by_the_next(
    store: SealedStore, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    store.configure(archive_seal_file=kept)
    step = 0
    while is_killed_at(store, step := step + 1):
        check_end(store, kept)
        store.add(b"Subject: %d\r\n\r\nx\r\n" % step)
    assert step > 20
    check_end(store, kept)


def test_a_run_that_is_killed_among_its_time_stamps_is_completed_by_the_next(
    stamped: SealedStore, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    stamped.configure(archive_seal_file=kept)
    step = 0
    while is_killed_at(stamped, step := step + 1) and step < 12:  # before the seal
        check_end(stamped, kept)
        stamped.add(b"Subject: %d\r\n\r\nx\r\n" % step)
    assert step == 12
    check_end(stamped, kept)
    stamped.verify("--seals")


# --- status and doctor ---------------------------------------------------------------


def test_status_knows_the_last_seal_and_what_came_after(
    store: SealedStore, tmp_path: Path
) -> None:
    assert seal_lag.state(store.settings) is None
    store.configure(archive_seal_file=tmp_path / "kept")
    state, arrival = seal_lag.state(store.settings), "2026-11-22T11:53:00Z"
    assert state and state.unsealed_age(ARRIVAL + 5.0) == 5.0
    assert state == ("", arrival)
    store.run("seal")
    state = seal_lag.state(store.settings)
    sealed_at = fields(store.seals()[0])["time"]
    assert state and state.unsealed_age(9e9) == 0.0
    assert state == (sealed_at, "")
    store.add(b"Subject: x\r\n\r\nx\r\n")
    assert seal_lag.state(store.settings) == (sealed_at, arrival)


def test_lost_seals_are_known_outside_the_store_and_the_next_follows_them(
    store: SealedStore, tmp_path: Path
) -> None:
    store.configure(archive_seal_file=tmp_path / "kept")
    store.run("seal")
    last = store.seals()[0].read_bytes()
    shutil.rmtree(store.path / "seals")
    losses = inspection._journal_losses(store.settings)
    [finding] = check_store.check_journals(
        replace(STOCK, settings=store.settings, journal_losses=losses)
    )
    assert finding.check == "seals-lost" and "journal-ends" in finding.fix
    assert f"{store.path}/seals: seal 1 is missing" in store.verify(exit_code=2)
    output = store.run("seal", exit_code=1).output
    assert f"{store.path}/seals: seal 1 is missing" in output
    [path] = store.seals()
    assert fields(path)["number"] == 2
    assert fields(path)["previous"] == verifier.parse_seal("", last).sha256
    output = store.verify(exit_code=2)
    assert "seal 1 missing before this one" in output
    assert "seal 1 is missing or is another one" in output
