"""Claims about the LMTP session: whatever comes, however it is cut, nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_archive.intake import lmtp_command, lmtp_session
from postfix_archive.message import smtp_data

LHLO = b"LHLO mail.example.com\r\n"
XFORWARD = (
    b"XFORWARD NAME=client.example.org ADDR=192.0.2.7 PORT=4711\r\n"
    b"XFORWARD PROTO=ESMTP HELO=client.example.org IDENT=4Zx SOURCE=REMOTE\r\n"
)
ENVELOPE = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.com>\r\n"
DATA = b"DATA\r\n"
BODY = b"Subject: hello\r\n\r\n..dots\r\n...\r\n\0\xff\r\n"
CONTENT = b"Subject: hello\r\n\r\n.dots\r\n..\r\n\0\xff\r\n"
DIALOGUE = (
    LHLO + XFORWARD + ENVELOPE + b"RCPT TO:<eve@example.com>\r\n"
    + DATA + BODY + b".\r\nRSET\r\n" + ENVELOPE + DATA + b".\r\nQUIT\r\n"
)  # fmt: skip


class Dialogue:
    """All that has come of some bytes: messages whole and dropped, the replies."""

    def __init__(self, *chunks: bytes, is_disconnected: bool = False) -> None:
        self.session = lmtp_session.Session(b"mail")
        self.envelopes: list[lmtp_session.LmtpEnvelope] = []
        self.contents: list[bytes] = []
        self.dropped_count = 0
        self.close_count = 0
        self._content = b""
        for chunk in chunks:
            self.session.receive_data(chunk)
            self._events()
        if is_disconnected:
            self.session.connection_lost()
            self._events()
        self.lines = self.session.data_to_send().decode().splitlines()

    def _events(self) -> None:
        while (event := self.session.next_event()) is not None:
            if isinstance(event, lmtp_session.MessageStarted):
                self.envelopes.append(event.envelope)
                self._content = b""
            elif isinstance(event, lmtp_session.MessageChunk):
                self._content += event.content
            elif isinstance(event, lmtp_session.MessageComplete):
                self.contents.append(self._content)
                recipients = self.envelopes[-1].recipients
                self.session.answer(
                    [(250, f"2.0.0 {each.address!r}") for each in recipients]
                )
            else:
                self.dropped_count += isinstance(event, lmtp_session.MessageAborted)
                self.close_count += isinstance(event, lmtp_session.SessionClosed)

    @property
    def codes(self) -> list[str]:
        """The codes of all replies, one a line."""
        return [line[:3] for line in self.lines]


def results_of(dialogue: Dialogue) -> tuple[object, ...]:
    """All that must not depend on how the bytes were cut."""
    mails = [
        (
            mail.sender, mail.envid, mail.ret, mail.is_8bitmime, mail.smtputf8,
            mail.xforward, [(a.address, a.notify, a.orcpt) for a in mail.recipients],
        )
        for mail in dialogue.envelopes
    ]  # fmt: skip
    return (
        mails,
        dialogue.contents,
        dialogue.dropped_count,
        dialogue.close_count,
        dialogue.lines,
    )


# --- a message --------------------------------------------------------------------


def test_a_message_comes_out_as_it_was_before_the_dots_were_doubled() -> None:
    dialogue = Dialogue(DIALOGUE)
    assert dialogue.contents == [CONTENT, b""]
    assert dialogue.codes[-1] == "221"
    assert dialogue.close_count == 1


def test_each_recipient_gets_a_reply_of_its_own_and_only_the_accepted_ones() -> None:
    refused = b"RCPT TO:nobody\r\n"
    dialogue = Dialogue(
        LHLO + ENVELOPE + refused + b"RCPT TO:<eve@example.com>\r\n" + DATA + b".\r\n"
    )
    assert dialogue.codes[-3:] == ["354", "250", "250"]
    assert "501" in dialogue.codes
    assert dialogue.lines[-2:] == [
        "250 2.0.0 b'bob@example.com'",
        "250 2.0.0 b'eve@example.com'",
    ]


def test_of_two_recipients_one_may_fail() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + b"RCPT TO:<eve@example.com>\r\n" + DATA)
    dialogue.session.receive_data(b"hi\r\n.\r\n")
    while not isinstance(dialogue.session.next_event(), lmtp_session.MessageComplete):
        pass
    dialogue.session.answer([(250, "2.0.0 kept"), (451, "4.3.0 not\r\n250 this one")])
    assert (
        dialogue.session.data_to_send()
        == b"250 2.0.0 kept\r\n451 4.3.0 not 250 this one\r\n"
    )


def test_answers_that_do_not_fit_the_recipients_defer_all_of_them() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + DATA)
    dialogue.session.receive_data(b".\r\n")
    while not isinstance(dialogue.session.next_event(), lmtp_session.MessageComplete):
        pass
    dialogue.session.answer([])
    assert dialogue.session.data_to_send().startswith(b"451 4.3.0 ")


def test_no_command_is_read_before_a_message_is_answered() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + DATA)
    dialogue.session.receive_data(b"hi\r\n.\r\nQUIT\r\n")
    kinds = [type(dialogue.session.next_event()) for _ in range(3)]
    assert kinds == [
        lmtp_session.MessageChunk,
        lmtp_session.MessageComplete,
        type(None),
    ]
    assert dialogue.session.data_to_send() == b""
    dialogue.session.answer([(250, "2.0.0 kept")])
    assert isinstance(dialogue.session.next_event(), lmtp_session.SessionClosed)
    assert dialogue.session.data_to_send() == b"250 2.0.0 kept\r\n221 2.0.0 Bye\r\n"


def test_all_that_was_announced_is_what_postfix_needs() -> None:
    lines = Dialogue(LHLO).lines
    assert lines[0].startswith("220 ")
    assert [line[4:].partition(" ")[0] for line in lines[2:]] == [
        "PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES",
        "XFORWARD",
    ]  # fmt: skip
    assert "250-SIZE" in lines
    assert "CHUNKING" not in "".join(lines)


def test_all_parameters_of_a_message_are_in_its_envelope() -> None:
    [mail] = Dialogue(
        LHLO + XFORWARD
        + b"mail from:<> SIZE=4711 BODY=8BITMIME SMTPUTF8 RET=hdrs ENVID=a+20b\r\n"
        + b"RCPT TO:<bob@example.com> NOTIFY=SUCCESS,delay ORCPT=rfc822;b+2B@x\r\n"
        + DATA
    ).envelopes  # fmt: skip
    assert (mail.sender, mail.ret, mail.envid) == (b"", b"hdrs", b"a b")
    assert mail.is_8bitmime and mail.smtputf8
    [recipient] = mail.recipients
    assert (recipient.notify, recipient.orcpt) == (b"SUCCESS,delay", b"rfc822;b+2B@x")
    assert mail.xforward == {
        b"client-hostname": b"client.example.org",
        b"client-address": b"192.0.2.7",
        b"client-port": b"4711",
        b"client-protocol": b"ESMTP",
        b"client-helo": b"client.example.org",
        b"queue-id": b"4Zx",
        b"source": b"REMOTE",
    }


@pytest.mark.parametrize("command_between", [b"", b"RSET\r\n"])
def test_the_client_of_one_message_is_not_that_of_the_next(
    command_between: bytes,
) -> None:
    dialogue = Dialogue(
        LHLO + XFORWARD + ENVELOPE + DATA + b".\r\n" + command_between + ENVELOPE + DATA
    )
    assert dialogue.envelopes[0].xforward
    assert not dialogue.envelopes[1].xforward


def test_what_postfix_does_not_know_of_the_client_is_empty() -> None:
    attributes = lmtp_command.parse_xforward(
        b"NAME=[UNAVAILABLE] HELO=a+20b PORT=[tempunavail]"
    )
    assert attributes == {
        b"client-hostname": b"", b"client-helo": b"a b", b"client-port": b""
    }  # fmt: skip


# --- addresses --------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        b"bob@example.com", b"x@", b"a@r..example", b"bob", b"\xff\xfe@example.com",
        b'"a> NOTIFY=NEVER"@example.com', b'"a\\"> b"@example.com', b'"', b"a b@c d",
        b"bob@example.com> NOTIFY=NEVER", b"bob@example.com> ORCPT=rfc822;x", b"a>b",
        b"-f@example.com", b"M\xc3\xbcller@example.com",
    ],
)  # fmt: skip
def test_every_address_that_sendmail_takes_comes_through(address: bytes) -> None:
    orcpt = b" NOTIFY=SUCCESS ORCPT=rfc822;bob>@example.com"
    recipient = lmtp_command.parse_rcpt(b"TO:<" + address + b">" + orcpt)
    assert recipient is not None
    assert recipient[0] == address
    assert recipient[1] == {b"NOTIFY": b"SUCCESS", b"ORCPT": b"rfc822;bob>@example.com"}


@pytest.mark.parametrize("local_part", [b"\1\7", b'"\1\x1b[2J\x7f"', b'"a\tb"'])
def test_an_address_with_control_characters_is_taken_as_lmtp_sends_it(
    local_part: bytes,
) -> None:
    assert lmtp_command.parse_mail(b"FROM:<" + local_part + b"@b>") == (
        local_part + b"@b",
        {},
    )
    assert lmtp_command.parse_rcpt(b"TO:<" + local_part + b"@b>") == (
        local_part + b"@b",
        {},
    )


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL", b"MAIL FROM:", b"MAIL FROM:ann@example.org", b"MAIL FROM:<a",
        b"MAIL TO:<a@b>", b"MAIL FROM:<a@b> SIZE=x", b"MAIL FROM:<a@b> SIZE=",
        b"MAIL FROM:<a@b> BODY=BINARYMIME", b"MAIL FROM:<a@b> RET=ALL",
        b"MAIL FROM:<a@b> ENVID=a+2", b"MAIL FROM:<a@b> ENVID=+zz", b"MAIL FROM:<\r@b>",
        b"MAIL FROM:<a@b> SIZE=1 SIZE=1", b"MAIL FROM:<a@b> AUTH=<>",
        b"MAIL FROM:<a@b>SIZE=1", b"MAIL FROM:<a@b> SMTPUTF8=1",
        b"MAIL FROM:<" + b"x" * 30,
    ],
)  # fmt: skip
def test_a_mail_command_that_cannot_be_read_is_refused(line: bytes) -> None:
    assert Dialogue(LHLO + line + b"\r\n").codes[-1] == "501"


@pytest.mark.parametrize(
    "line",
    [
        b"RCPT TO:<>", b"RCPT", b"RCPT TO:bob", b"RCPT TO:<a@b> NOTIFY=",
        b"RCPT TO:<a@b> NOTIFY=NEVER,DELAY", b"RCPT TO:<a@b> NOTIFY=ALWAYS",
        b"RCPT TO:<a@b> ORCPT=bob", b"RCPT TO:<a@b> ORCPT=;bob",
        b"RCPT TO:<a@b> ORCPT=rfc822;", b"RCPT TO:<a@b> SIZE=1",
    ],
)  # fmt: skip
def test_a_rcpt_command_that_cannot_be_read_is_refused(line: bytes) -> None:
    dialogue = Dialogue(LHLO + b"MAIL FROM:<>\r\n" + line + b"\r\n" + DATA)
    assert dialogue.codes[-2:] == ["501", "503"]
    assert not dialogue.envelopes


# --- bad input --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        (ENVELOPE, "503"), (DATA, "503"), (b"RCPT TO:<a@b>\r\n", "503"),
        (LHLO + DATA, "503"), (LHLO + b"RCPT TO:<a@b>\r\n", "503"),
        (LHLO + b"MAIL FROM:<>\r\n" + DATA, "503"),
        (LHLO + ENVELOPE + ENVELOPE[:29], "503"),
        (LHLO + ENVELOPE + XFORWARD, "503"), (LHLO + ENVELOPE + b"DATA now\r\n", "501"),
        (b"LHLO\r\n", "501"), (b"HELO a\r\n", "500"), (b"EHLO a\r\n", "500"),
        (b"\r\n", "500"), (b"NOOP\0\r\n", "500"), (b"\xff\xfe\r\n", "500"),
        (LHLO + b"XFORWARD\r\n", "501"), (LHLO + b"XFORWARD LOGIN=x\r\n", "501"),
        (b"VRFY bob\r\n", "252"), (b"NOOP\r\n", "250"), (b"RSET\r\n", "250"),
        (LHLO + ENVELOPE + LHLO + DATA, "503"),
        (LHLO + ENVELOPE + b"RSET\r\nDATA\r\n", "503"),
    ],
)  # fmt: skip
def test_commands_out_of_order_get_a_reply_and_no_message(
    commands: bytes, code: str
) -> None:
    dialogue = Dialogue(commands)
    assert dialogue.codes[-1] == code
    assert not dialogue.envelopes and not dialogue.close_count


@pytest.mark.parametrize("before", [b"", LHLO, LHLO + ENVELOPE])
def test_bdat_is_refused_and_its_content_is_never_obeyed(before: bytes) -> None:
    dialogue = Dialogue(before + b"BDAT 40 LAST\r\n" + ENVELOPE + DATA + b"hi\r\n.\r\n")
    assert dialogue.codes[-2:] == ["502", "421"]
    assert dialogue.close_count == 1 and not dialogue.envelopes


@pytest.mark.parametrize("line_start", [b"x", b"MAIL FROM:<", b"\0"])
def test_a_line_without_end_ends_the_session_and_fills_no_memory(
    line_start: bytes,
) -> None:
    dialogue = Dialogue(LHLO, *[line_start * 1000] * 1000)
    assert dialogue.codes[-1] == "421"
    assert dialogue.close_count == 1
    assert len(dialogue.lines) == len(Dialogue(LHLO).lines) + 1
    assert not dialogue.session._buffer


def test_the_longest_line_that_postfix_could_send_is_read() -> None:
    address = b'"' + b"\\\xff" * 2047 + b'"@b'
    line = b"RCPT TO:<" + address + b"> ORCPT=rfc822;" + b"+FF" * 2048 + b"\r\n"
    dialogue = Dialogue(LHLO + b"MAIL FROM:<>\r\n" + line + DATA)
    assert dialogue.envelopes[0].recipients[0].address == address


def test_a_bare_lf_after_a_command_ends_the_session() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + b"DATA\nhi\r\n.\r\n")
    assert dialogue.codes[-1] == "421"
    assert dialogue.close_count == 1 and not dialogue.envelopes


@pytest.mark.parametrize(
    "body",
    [b"a\nb\r\n", b"\n.\r\n", b"a\n.\nRSET\r\n", b"\n\r\n", b"a\r\n.\nb\r\n", b"\n"],
)
def test_a_bare_lf_in_a_message_ends_no_message_and_makes_it_wait(body: bytes) -> None:
    dialogue = Dialogue(
        LHLO + ENVELOPE + DATA + body + b"\r\n.\r\n" + ENVELOPE + DATA + b"ok\r\n.\r\n"
    )
    assert dialogue.contents == [b"ok\r\n"]
    assert dialogue.dropped_count == 1
    assert "451 4.6.0 bare LF in message" in dialogue.lines


def test_ten_thousand_recipients_are_taken_and_each_is_answered() -> None:
    rcpts = b"".join(b"RCPT TO:<r%d@example.com>\r\n" % n for n in range(10_000))
    dialogue = Dialogue(LHLO + b"MAIL FROM:<>\r\n" + rcpts + DATA + b".\r\n")
    assert len(dialogue.envelopes[0].recipients) == 10_000
    assert dialogue.codes.count("250") > 20_000


@pytest.mark.parametrize("length", [1, 500])
def test_too_many_recipients_are_deferred(length: int) -> None:
    rcpt = b"RCPT TO:<" + b"r" * length + b"@example.com>\r\n"
    dialogue = Dialogue(
        LHLO + b"MAIL FROM:<>\r\n", *[rcpt * 1000] * 25, DATA + b".\r\n"
    )
    [mail] = dialogue.envelopes
    assert len(mail.recipients) <= lmtp_session.RECIPIENT_LIMIT
    assert (
        sum(len(each.address) for each in mail.recipients)
        < lmtp_session.ENVELOPE_SIZE_LIMIT
    )
    assert dialogue.codes.count("452") == 25_000 - len(mail.recipients)
    assert dialogue.contents == [b""]


def test_a_client_that_only_makes_errors_is_disconnected() -> None:
    dialogue = Dialogue(LHLO + b"WHAT\r\n" * 1000)
    assert dialogue.codes.count("500") == lmtp_session.ERROR_LIMIT + 1
    assert dialogue.codes[-1] == "421"


def test_a_client_that_sends_no_mail_is_disconnected_and_one_that_does_is_not() -> None:
    assert Dialogue(b"NOOP\r\n" * 1000).codes[-1] == "421"
    message = b"NOOP\r\nRSET\r\n" + XFORWARD + ENVELOPE + DATA + b".\r\n"
    dialogue = Dialogue(LHLO + message * 200)
    assert len(dialogue.contents) == 200 and not dialogue.close_count


def test_a_client_that_hangs_up_after_any_byte_leaves_no_half_message() -> None:
    for end in range(len(DIALOGUE) + 1):
        dialogue = Dialogue(DIALOGUE[:end], is_disconnected=True)
        assert dialogue.contents == [CONTENT, b""][: len(dialogue.contents)]
        assert (
            len(dialogue.envelopes) == len(dialogue.contents) + dialogue.dropped_count
        )
        assert dialogue.close_count == 1


def test_a_client_that_is_gone_before_the_answer_has_its_message_dropped() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + DATA)
    dialogue.session.receive_data(b".\r\n")
    while not isinstance(dialogue.session.next_event(), lmtp_session.MessageComplete):
        pass
    dialogue.session.connection_lost()
    assert isinstance(dialogue.session.next_event(), lmtp_session.MessageAborted)
    assert isinstance(dialogue.session.next_event(), lmtp_session.SessionClosed)
    assert dialogue.session.next_event() is None


def test_no_reply_is_longer_than_smtp_allows() -> None:
    dialogue = Dialogue(LHLO + ENVELOPE + DATA)
    dialogue.session.receive_data(b".\r\n")
    while not isinstance(dialogue.session.next_event(), lmtp_session.MessageComplete):
        pass
    dialogue.session.answer([(451, "4.3.0 " + "x" * 5000)])
    assert len(dialogue.session.data_to_send()) == 512


# --- any cut ----------------------------------------------------------------------

COMMANDS = st.sampled_from(
    [
        LHLO, XFORWARD, ENVELOPE, DATA, BODY,
        b".\r\n", b"RSET\r\n", b"NOOP\r\n", b"\r\n",
        b"RCPT TO:<eve@example.com> NOTIFY=NEVER\r\n", b"QUIT\r\n", b"VRFY x\r\n", b".",
        b"\n", b"\r", b"\0", b"BDAT 3\r\n", b"hi\r\n.\r\n", b"\r\n..\r\n", b"WHAT\r\n",
        b"x" * 200, b"\n.\r\n", b"\r.\r\n", b"\r\n.\r", b".\n",
    ]
)  # fmt: skip


def split_at(content: bytes, offsets: list[int]) -> list[bytes]:
    bounds = sorted({0, len(content), *(each % (len(content) + 1) for each in offsets)})
    return [content[a:b] for a, b in zip(bounds, bounds[1:])]


def test_one_byte_at_a_time_is_the_same_as_all_at_once() -> None:
    bytewise = Dialogue(
        *(DIALOGUE[index : index + 1] for index in range(len(DIALOGUE)))
    )
    assert results_of(bytewise) == results_of(Dialogue(DIALOGUE))


@given(st.lists(COMMANDS, max_size=25), st.lists(st.integers(0, 5000), max_size=30))
def test_any_cut_of_the_bytes_gives_the_same(
    pieces: list[bytes], cuts: list[int]
) -> None:
    content = LHLO + ENVELOPE + DATA + b"".join(pieces)
    assert results_of(
        Dialogue(*split_at(content, cuts), is_disconnected=True)
    ) == results_of(Dialogue(content, is_disconnected=True))


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=9))
def test_noise_is_answered_or_the_session_ends(noise: bytes, cuts: list[int]) -> None:
    dialogue = Dialogue(LHLO, *split_at(noise, cuts), is_disconnected=True)
    assert not dialogue.contents and dialogue.close_count == 1


@given(st.lists(st.sampled_from([b"a", b".", b"..", b"\r", b"\0", b""]), max_size=40))
def test_dot_stuffed_data_is_read_as_it_was(words: list[bytes]) -> None:
    content = b"".join(each + b"\r\n" for each in words)
    stuffed = b"".join(smtp_data.dot_stuff([content])) + b".\r\n"
    for step in (1, 2, 3, 7, len(stuffed)):
        chunks = [
            stuffed[index : index + step] for index in range(0, len(stuffed), step)
        ]
        assert Dialogue(LHLO + ENVELOPE + DATA, *chunks).contents == [content]


@given(st.binary(max_size=40))
def test_xtext_is_read_or_is_none(coded: bytes) -> None:
    plain = lmtp_command.decode_xtext(coded)
    assert plain is None or len(plain) <= len(coded)
