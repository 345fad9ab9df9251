"""Claims about tables with ARCHIVE lines and the native tables made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.errors import SettingInvalid, TableInvalid
from postfix_archive.message import request
from postfix_archive.message.envelope import Recipient
from postfix_archive.tables import table_source

from unit.examples import HR, KEYS, LEGAL, make_settings

SOURCE_PATH = "/etc/postfix/table.in"


def compile_source(source: bytes, kind: str = "hash") -> table_source.CompiledTable:
    return table_source.compile_table(
        source, table_type=kind, path=SOURCE_PATH, keys=KEYS
    )


def compiled_body(source: bytes, kind: str = "hash") -> bytes:
    """The native table without its first line, the marker."""
    marker, _, rest = compile_source(source, kind).content.partition(b"\n")
    assert marker.startswith(table_source.MARKER)
    return rest


def bcc_action(*archives: str) -> bytes:
    return b"BCC " + request.make_recipient(",".join(archives), KEYS)


def test_the_native_table_names_its_maker_and_its_source() -> None:
    assert compile_source(b"").content == (
        b"# Made by postfix-archive tables from /etc/postfix/table.in:"
        b" edit that file.\n"
    )


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("hash", b"alice@example.com"),
        ("btree", b'"alice smith"@example.com'),
        ("lmdb", b"example.com"),
        ("texthash", b"192.0.2"),
        ("cdb", b"archive"),
        ("cidr", b"192.0.2.0/24"),
        ("cidr", b"!2001:db8::/32"),
        ("cidr", b"! [::1]"),
        ("regexp", b"/^Subject: a deal/"),
        ("regexp", b"!/^Subject: a deal/i"),
        ("regexp", rb"/a\/b ARCHIVE c@d/x"),
        ("pcre", b"{^Subject: x{xim"),
        ("pcre", b"/# no comment/"),
    ],
)
def test_an_archive_line_becomes_a_bcc(kind: str, pattern: bytes) -> None:
    source = pattern + b"\t ARCHIVE  legal@example.com\n"
    assert compiled_body(source, kind) == pattern + b" " + bcc_action(LEGAL) + b"\n"
    [archive_line] = compile_source(source, kind).archive_lines
    assert (archive_line.number, archive_line.pattern, archive_line.archives) == (
        1,
        pattern,
        (LEGAL,),
    )


@pytest.mark.parametrize(
    "action",
    [
        b"ARCHIVE legal@example.com,hr@example.com",
        b"archive legal@example.com, hr@example.com",
        b"Archive Legal@Example.COM ,\thr@example.com\r",
        b"ARCHIVE legal@example.com,\n  hr@example.com",
        b"ARCHIVE legal@example.com, hr@example.com, legal@example.com",
    ],
)
def test_one_line_requests_several_archives(action: bytes) -> None:
    native = compiled_body(b"bob@x.org " + action + b"\n")
    assert native == b"bob@x.org " + bcc_action(LEGAL, HR) + b"\n"
    carried = native.split()[-1]
    parts = request.SplitRecipients([Recipient(carried)], KEYS)
    assert list(parts.table_archives) == [LEGAL, HR]
    assert not parts.recipients and not parts.forged_count


def test_a_comment_after_the_addresses_becomes_a_line_of_its_own() -> None:
    native = compiled_body(b"a@x.org ARCHIVE legal@example.com # case 7\nb@x.org OK\n")
    assert native == b"# case 7\na@x.org " + bcc_action(LEGAL) + b"\nb@x.org OK\n"


def test_comments_within_a_continued_line_hide_no_address() -> None:
    native = compiled_body(
        b"a@x.org ARCHIVE legal@example.com # one\n# two\n\n  , hr@example.com # three"
    )
    assert (
        native == b"# two\n\n# one\n# three\na@x.org " + bcc_action(LEGAL, HR) + b"\n"
    )


def test_a_pattern_over_two_lines_is_joined_as_postfix_does() -> None:
    native = compiled_body(b"/a\n b/x ARCHIVE legal@example.com\n", "pcre")
    assert native == b"/a b/x " + bcc_action(LEGAL) + b"\n"


def test_a_hash_in_an_address_is_no_comment() -> None:
    assert (
        compiled_body(b"a ARCHIVE x#y@example.com\n")
        == b"a " + bcc_action("x#y@example.com") + b"\n"
    )


def test_line_numbers_are_those_of_the_source() -> None:
    source = (
        b"# comment\n\nbob REJECT\n  and more\n\n"
        b"alice ARCHIVE legal@example.com\ncarol ARCHIVE hr@example.com"
    )
    table = compile_source(source)
    assert [each.number for each in table.archive_lines] == [6, 7]
    assert table.other_line_count == 1


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_conditions_stay(kind: str) -> None:
    source = (
        b"if /^Subject:/\n/deal here/ ARCHIVE legal@example.com\nendif\n"
        b"if !/^From:/\n/x/ REJECT no ARCHIVE here\nENDIF\n"
    )
    expected = source.replace(b"ARCHIVE legal@example.com", bcc_action(LEGAL))
    assert compiled_body(source, kind) == expected


def test_conditions_of_cidr_tables_stay() -> None:
    source = b"if 192.0.2.0/24\n192.0.2.1 ARCHIVE legal@example.com\nendif\n"
    expected = source.replace(b"ARCHIVE legal@example.com", bcc_action(LEGAL))
    assert compiled_body(source, "cidr") == expected


@pytest.mark.parametrize(
    "line",
    [
        b"alice@example.com REJECT ARCHIVE a@b",
        b"archive REDIRECT a@example.com",
        b"archive REJECT",
        b"a ARCHIVED a@example.com",
        b"a archive_class",
        b"a",
        b'"ARCHIVE a@example.com',
        b"  leading white space",
        b"a\\",
        b"\xff\xfe \x80",
    ],
)
def test_native_lines_stay(line: bytes) -> None:
    assert compiled_body(line) == line


@pytest.mark.parametrize(
    ("kind", "line", "error_text"),
    [
        ("hash", b"a ARCHIVE", "without an address"),
        ("hash", b"a ARCHIVE # why", "without an address"),
        ("hash", b"a ARCHIVE legal", "'legal' is not an archive address"),
        ("hash", b"a ARCHIVE a@x.org b@x.org", "comma between two"),
        ("hash", b"a ARCHIVE a@x.org,", "'' is not an archive address"),
        ("hash", b"a ARCHIVE ../a@x.org", "not an archive address"),
        ("hash", b"a ARCHIVE \xff@x.org", "not an archive address"),
        ("hash", b"a ARCHIVE a@x.org REJECT", "not an archive address"),
        ("regexp", b"/(.*)/ ARCHIVE $1@example.com", "in full"),
        ("pcre", b"/(.*)/ ARCHIVE ${1}@example.com", "in full"),
        ("hash", b"ARCHIVE legal@example.com", "without a pattern"),
        ("hash", b"ARCHIVE", "without a pattern"),
        ("cidr", b"archive legal@example.com", "192.0.2.0/24 ARCHIVE"),
        ("regexp", b"ARCHIVE legal@example.com", "/^Subject: deal/ ARCHIVE"),
        ("regexp", b"Subject ARCHIVE legal@example.com", "without a pattern"),
        ("pcre", b"/open ARCHIVE legal@example.com", "without a pattern"),
        ("pcre", b"if /x/ ARCHIVE legal@example.com", "before endif"),
        ("cidr", b"if 192.0.2.0/24 ARCHIVE legal@example.com", "before endif"),
        ("cidr", b"endif ARCHIVE legal@example.com", "before endif"),
    ],
)
def test_a_wrong_line_is_named_with_the_next_step(
    kind: str, line: bytes, error_text: str
) -> None:
    with pytest.raises(TableInvalid) as excinfo:
        compile_source(b"# comment\n" + line + b"\n", kind)
    assert str(excinfo.value).startswith(f"{SOURCE_PATH}, line 2: ")
    assert error_text in str(excinfo.value)
    assert "\n" not in str(excinfo.value)


@given(st.binary(), st.sampled_from(["hash", "cidr", "regexp", "pcre"]))
def test_a_table_without_archive_lines_stays_byte_for_byte(
    source: bytes, kind: str
) -> None:
    if b"archive" not in source.lower():
        assert compiled_body(source, kind) == source


LINES = st.lists(
    st.sampled_from(
        [
            b"alice@example.com REJECT no\n",
            b"/a b/ WARN x\n",
            b"\n",
            b" \t\n",
            b"# ARCHIVE nothing@example.com\n",
            b"  goes on\n",
            b"if /x/\r\n",
            b"endif\n",
        ]
    )
)


@given(LINES, LINES, st.sampled_from(["hash", "cidr", "regexp", "pcre"]))
def test_native_lines_beside_an_archive_line_stay_byte_for_byte(
    before: list[bytes], after: list[bytes], kind: str
) -> None:
    first = b"".join(before)
    rest = b"/end/ OK\n" + b"".join(after)
    source = first + b"/x/ ARCHIVE legal@example.com\n" + rest
    assert (
        compiled_body(source, kind)
        == first + b"/x/ " + bcc_action(LEGAL) + b"\n" + rest
    )


@given(st.binary())
def test_the_logical_lines_together_are_the_table(source: bytes) -> None:
    assert b"".join(each.raw for each in table_source.logical_lines(source)) == source


def test_the_setting_names_types_and_sources() -> None:
    settings = make_settings(
        "archive_tables = hash:/a/senders.in, pcre:/a/headers.in\n"
    )
    assert settings.archive_tables == (
        ("hash", "/a/senders.in"),
        ("pcre", "/a/headers.in"),
    )
    assert make_settings("").archive_tables == ()


@pytest.mark.parametrize(
    "table",
    ["mysql:/a/b.in", "hash:/a/b", "hash:b.in", "/a/b.in", "hash:/c.in hash:/c.in"],
)
def test_a_table_that_cannot_be_a_source_is_a_wrong_setting(table: str) -> None:
    with pytest.raises(SettingInvalid, match=table.split()[0]):
        make_settings(f"archive_tables = {table}\n")


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
def test_an_expression_without_an_end_is_known_at_once(kind: str) -> None:
    line = b"/" + b"\\r" * 2000 + b" ARCHIVE legal@example.com"
    with pytest.raises(TableInvalid, match="ARCHIVE without a pattern"):
        compile_source(line, kind)


def test_a_backslash_ends_no_expression() -> None:
    line = b"/a\\/b\\\\/i ARCHIVE legal@example.com"
    assert compiled_body(line, "pcre") == b"/a\\/b\\\\/i " + bcc_action(LEGAL) + b"\n"
