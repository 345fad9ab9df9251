"""Claims about encoded words: people read what the sender wrote."""

from __future__ import annotations

import base64
import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.message import encoded_words


def encoded_word(charset: str, content: bytes) -> bytes:
    return b"=?%s?B?%s?=" % (charset.encode(), base64.b64encode(content))


def guess_koi8(raw: bytes) -> str:
    return raw.decode("koi8-r")


ROW_13 = b"\x1b$B\x2d\x21\x2d\x6a\x1b(B"  # circled one, abbreviation of company: NEC


@pytest.mark.parametrize(
    ("charset", "content", "text"),
    [
        ("gb2312", "朱镕基与陶喆".encode("gbk"), "朱镕基与陶喆"),
        ("GB2312", "𠮷野".encode("gb18030"), "𠮷野"),
        ("gb_2312-80", "合同".encode("gbk"), "合同"),
        ("ks_c_5601-1987", "펲시콜라 똠방각하".encode("cp949"), "펲시콜라 똠방각하"),
        ("euc-kr", "똠".encode("cp949"), "똠"),
        ("big5", "佢喺".encode("big5hkscs"), "佢喺"),
        ("big5", "€".encode("cp950"), "€"),
        ("shift_jis", "①㈱髙".encode("cp932"), "①㈱髙"),
        ("x-sjis", "髙".encode("cp932"), "髙"),
        ("iso-2022-jp", "日本語".encode("iso-2022-jp"), "日本語"),
        ("iso-2022-jp", ROW_13 + b" x \x1b(I\x31\x1b(B", "①㈱ x ｱ"),
        ("iso-2022-jp", b"\x1b$(D\x30\x21\x1b(B", "丂"),
        ("iso-8859-8-i", "שלום".encode("iso8859-8"), "שלום"),
        ("iso-8859-1", b"\x80 \x93x\x94", "€ “x”"),
        ("iso-8859-1", b"\x81\xe9", "\x81é"),
        ("windows-1251", "договор".encode("cp1251"), "договор"),
        ("windows-936", "镕".encode("gbk"), "镕"),
        ("x-windows-949", "똠".encode("cp949"), "똠"),
        ("windows-874", "สัญญา".encode("cp874"), "สัญญา"),
        ("utf-8*en-GB", "Grüße".encode(), "Grüße"),
        ("utf-8", b"gr\xfcn", "gr\ufffdn"),
        ("us-ascii", "договор".encode("koi8-r"), "договор"),
        ("unknown-8bit", "договор".encode("koi8-r"), "договор"),
    ],
)
def test_a_charset_is_read_as_senders_use_it(
    charset: str, content: bytes, text: str
) -> None:
    assert encoded_words.decode(encoded_word(charset, content), guess_koi8) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe_x?=", "Grüße x"),
        (b"=?UTF-8?b?R3LDvMOfZQ?=", "Grüße"),  # padding left out
        (b"a =?utf-8?q?b?=  =?utf-8?q?c?= d", "a bc d"),
        (b"=?utf-8?q?b?= \t =?iso-8859-1?q?=FC?=", "bü"),
        (b"=?utf-8?q?b?= x =?utf-8?q?c?=", "b x c"),
        (b"x=?utf-8?q?b?=y", "xby"),
        (b"=?utf-8?Q?how??= =?utf-8*en?Q?_so?=", "how? so"),
        (b"=?utf-8?B?a?= b", "=?utf-8?B?a?= b"),  # no base64
        (b"=?x-none?Q?zz?=", "=?x-none?Q?zz?="),
        (b"=?hex?Q?zz?=", "=?hex?Q?zz?="),
        (b"=?unicode-escape?Q?=5Cx41?=", "=?unicode-escape?Q?=5Cx41?="),
        (b"=?utf-16?B?AA==?=", "=?utf-16?B?AA==?="),
        (b"=?utf-8?Q?open", "=?utf-8?Q?open"),
        (b"=?utf-8?q??=", ""),
        ("договор ".encode("koi8-r") + b"=?utf-8?q?x?=", "договор x"),
        (b"", ""),
    ],
)
def test_what_is_no_encoded_word_stays_as_it_is(value: bytes, text: str) -> None:
    assert encoded_words.decode(value, guess_koi8) == text


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_character_may_begin_in_one_word_and_end_in_the_next(size: int) -> None:
    for charset in ("utf-8", "gb2312", "ks_c_5601-1987", "shift_jis"):
        content = "合同".encode(charset)
        pieces = (content[at : at + size] for at in range(0, len(content), size))
        value = b"\t ".join(encoded_word(charset, piece) for piece in pieces)
        assert encoded_words.decode(value) == "合同"


@given(st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), max_size=80))
def test_what_another_library_encodes_is_decoded(text: str) -> None:
    encoded = email.header.Header(text, "utf-8").encode(linesep="\r\n")
    value = encoded.encode().replace(b"\r\n", b"")
    assert encoded_words.decode(value) == text


@given(
    st.lists(
        st.sampled_from([b"=?", b"?=", b"utf-8", b"?q?", b"?B?", b" ", b"=C3", b"\xff"])
        | st.binary(max_size=6),
        max_size=12,
    ).map(b"".join)
)
def test_any_bytes_can_be_decoded(value: bytes) -> None:
    assert isinstance(encoded_words.decode(value), str)


@given(st.binary(max_size=40))
@pytest.mark.parametrize("charset", ["iso-2022-jp", "utf-7", "hz", "utf-16", "big5"])
def test_any_content_of_a_charset_can_be_decoded(charset: str, content: bytes) -> None:
    assert isinstance(encoded_words.decode(encoded_word(charset, content)), str)


def test_rows_of_nec_agree_with_jis_x_0208_elsewhere() -> None:
    """But for six signs, such as the wave dash, which Microsoft maps its own way."""
    differences = []
    for row in range(0x21, 0x7F):
        for cell in range(0x21, 0x7F):
            content = b"\x1b$B%c%c\x1b(B" % (row, cell)
            try:
                text = content.decode("iso-2022-jp")
            except UnicodeDecodeError:
                continue
            if encoded_words._decode_jis(content) != text:
                differences.append(text)
    assert "".join(differences) == "〜‖−¢£¬"
