"""A store with some 60 messages of known properties, in many languages, two archives.

Nothing here is a test. Each mail has a name, by which the cases of queries.tsv expect
it. The first 24 hours are in one year, the others in the next.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from postfix_archive.archive_transport import copy_plan
from postfix_archive.message import archive_copy, capsule
from postfix_archive.message.envelope import Client, Recipient
from postfix_archive.store import copy_file, outcome
from postfix_archive.store.archive import Archive
from postfix_archive.store.outcome import Outcome

from unit import examples
from unit.examples import HR, KEYS, LEGAL, make_envelope, make_request

FROM = b"postfix-archive@mail.example.com"
FIRST_ARRIVAL = datetime(2025, 12, 20, 9, 0, tzinfo=timezone.utc)
INTERVAL = timedelta(days=1, hours=1)  # between two messages
LIST_SIZE = 60


@dataclass(frozen=True)
class Mail:
    """What the sender wrote, and what Postfix knows."""

    name: str
    subject: str
    text: str
    sender: tuple[str, str] = ("Anna Meier", "anna.meier@example.org")
    to: tuple[tuple[str, str], ...] = (("Bob", "bob@example.com"),)
    cc: tuple[tuple[str, str], ...] = ()
    bcc: tuple[str, ...] = ()  # in the envelope alone
    envelope_sender: str | None = None  # if it is another one; "" for the null sender
    mapped: tuple[tuple[str, str], ...] = ()  # recipient -> the mailbox behind it
    files: tuple[tuple[str, str, int], ...] = ()  # name, media type, bytes
    html: bool = False
    padding: int = 0  # bytes
    link: str = ""  # its target, at the end of html
    preamble: str = ""  # before the first part, if there are files
    list_id: str = ""
    list_name: str = ""
    client: str = "192.0.2.7"
    login: str = ""
    archive: str = LEGAL
    verdict: str = "absent"
    outcomes: tuple[str, ...] = ()  # of the recipients, in their order
    number: int = field(default=0, compare=False)

    @property
    def arrival(self) -> datetime:
        return FIRST_ARRIVAL + self.number * INTERVAL

    @property
    def queue_id(self) -> str:
        return f"4Zq{self.number:02d}QueueId"

    @property
    def message_id(self) -> str:
        return f"{self.name}.{self.number}@mua.example.org"

    @property
    def sender_address(self) -> str:
        """The sender of the envelope."""
        own = self.envelope_sender
        return self.sender[1] if own is None else own

    @property
    def archive_id(self) -> str:
        digest = hashlib.sha1(self.name.encode()).hexdigest()
        return f"{self.arrival:%Y%m%d}-{digest}"

    @property
    def recipients(self) -> list[str]:
        return [each for _, each in (*self.to, *self.cc)] + list(self.bcc)

    @property
    def message(self) -> bytes:
        """The message as Postfix gives it to the filter, with line ends of SMTP."""
        mail = EmailMessage()
        mail["From"] = _mailbox(self.sender)
        if self.to:
            mail["To"] = [_mailbox(each) for each in self.to]
        if self.cc:
            mail["Cc"] = [_mailbox(each) for each in self.cc]
        mail["Subject"] = self.subject
        mail["Date"] = format_datetime(self.arrival - timedelta(minutes=2))
        mail["Message-ID"] = f"<{self.message_id}>"
        if self.list_id:
            mail["List-Id"] = f"{self.list_name} <{self.list_id}>".strip()
        text = self.text + "\n" + "x. " * (self.padding // 3)
        if self.html:
            link = f'<a href="{self.link}">this</a>' if self.link else ""
            html = f"<html><body><p>{text}</p>{link}</body></html>"
            mail.set_content(html, subtype="html")
        else:
            mail.set_content(text)
        for name, media_type, size in self.files:
            maintype, _, subtype = media_type.partition("/")
            mail.add_attachment(
                bytes(size), maintype=maintype, subtype=subtype, filename=name
            )
        if mail.is_multipart():
            mail.set_boundary(f"=={self.name}==")  # the same in each run
            mail.preamble = self.preamble or None
        received = (
            f"Received: from client.example.org (client.example.org [{self.client}])\n"
            f"\tby mail.example.com (Postfix) with ESMTPS id {self.queue_id};\n"
            f"\t{format_datetime(self.arrival)}\n"
        )
        return (received.encode() + mail.as_bytes()).replace(b"\n", b"\r\n")

    def store_in(self, directory: Path) -> None:
        """Archive it as the archive transport does, and its outcomes."""
        store = Archive(str(directory), self.archive)
        time = f"{self.arrival:%Y-%m-%dT%H:%M:%SZ}"
        store.store_copy(self._capture(), [self._copy()], time)
        outcomes = [
            (
                self.archive_id,
                Outcome(
                    recipient=dict(self.mapped).get(recipient, recipient),
                    original=recipient,
                    kind=kind,
                    capture_queue_id=self.queue_id,
                    queue_id=f"4Zr{self.number:02d}Requeued",
                    time=time,
                ),
            )
            for recipient, kind in zip(self.recipients, self.outcomes)
        ]
        if outcomes:
            store.record_outcomes(outcomes, time)

    def _capsule(self) -> capsule.Capsule:
        mapped = dict(self.mapped)
        return examples.unseal_capsule(
            make_envelope(
                self.message,
                archive_id=self.archive_id,
                queue_id=self.queue_id.encode(),
                sender=self.sender_address.encode(),
                recipients=tuple(
                    Recipient(mapped.get(each, each).encode(), each.encode())
                    for each in self.recipients
                ),
                requests=(make_request(self.archive, verdict=self.verdict),),
                client=Client(
                    address=self.client.encode(),
                    hostname=b"client.example.org",
                    protocol=b"ESMTP",
                    sasl_username=self.login.encode(),
                ),
                arrival=int(self.arrival.timestamp()),
            )
        )

    def _capture(self) -> copy_file.Capture:
        sealed = self._capsule()
        return copy_file.Capture(
            record_id=self.archive_id,
            capsule_id=sealed.capsule_id,
            envelope_fields=sealed.fields,
            sha256=examples.sha256(self.message).hex(),
            size=len(self.message),
            verdict=self.verdict,
        )

    def _copy(self) -> bytes:
        digest = examples.sha256(self.message).hex()
        report = copy_plan.build_report(
            self._capsule(),
            make_request(self.archive, verdict=self.verdict),
            self.message,
            examples.content_properties(self.message),
            sha256=digest,
            size=len(self.message),
        )
        boundary = archive_copy.make_boundary(self.archive_id, digest, KEYS)
        parts = archive_copy.build(report, "hybrid", sender=FROM, boundary=boundary)
        return parts.preamble + self.message + parts.trailer


def _mailbox(mailbox: tuple[str, str]) -> Address:
    return Address(mailbox[0], addr_spec=mailbox[1])


OOXML = "application/vnd.openxmlformats-officedocument"
DOCX, XLSX = f"{OOXML}.wordprocessingml.document", f"{OOXML}.spreadsheetml.sheet"
BOB, EVE, CARL = (
    ("Bob", "bob@example.com"),
    ("Eve", "eve@example.com"),
    ("Carl Ångström", "carl@example.net"),
)
YUKI = ("田中 由紀", "yuki@example.jp")
LI = ("李小龙", "li@example.cn")
OLGA = ("Ольга Петрова", "olga@example.ru")
TEAM = ("Team", "team@lists.example.com")
DONE, FAIL, EXPIRED, WAIT = (
    outcome.DELIVERED,
    outcome.FAILED,
    outcome.EXPIRED,
    outcome.WAITING,
)

_MAILS = (
    Mail(
        "contract",
        "The contract",
        "Please sign the contract until Friday.",
        outcomes=(DONE,),
    ),
    Mail(
        "contract-re",
        "Re: The contract",
        "Signed. The invoice will follow.\n> Please sign the contract until Friday.",
        sender=BOB,
        to=(("Anna Meier", "anna.meier@example.org"),),
        outcomes=(outcome.RELAYED,),
    ),
    Mail(
        "invoice",
        "Invoice 4711",
        "Invoice number 4711 of March, total 1,234.50 EUR.",
        to=(BOB, EVE),
        files=(("invoice-4711.pdf", "application/pdf", 900),),
        outcomes=(DONE, DONE),
    ),
    Mail(
        "bcc",
        "Team meeting",
        "The agenda of the team meeting is attached.",
        to=(BOB,),
        bcc=("secret@example.com",),
        files=(
            (
                "agenda.docx",
                DOCX,
                500,
            ),
        ),
        outcomes=(DONE, FAIL),
    ),
    Mail(
        "bcc-self",
        "Notes to myself",
        "Buy milk and coffee.",
        bcc=("anna.meier@example.org",),
    ),
    Mail(
        "large",
        "Photos of the summer party",
        "Here are the photos.",
        files=(
            ("party.jpg", "image/jpeg", 400_000),
            ("dance.png", "image/png", 50_000),
        ),
        cc=(EVE,),
        outcomes=(DONE, DONE),
    ),
    Mail(
        "newsletter",
        "Weekly news",
        "All the news of the week about gardening and roses.",
        sender=("News", "news@lists.example.com"),
        envelope_sender="bounce+bob=example.com@lists.example.com",
        list_id="news.lists.example.com",
        client="198.51.100.9",
        html=True,
    ),
    Mail(
        "list",
        "[team] Lunch on Friday?",
        "Pizza or pasta on Friday?",
        to=(TEAM,),
        list_id="team.lists.example.com",
        mapped=(("team@lists.example.com", "carl@example.net"),),
        outcomes=(DONE,),
    ),
    Mail(
        "bounce",
        "Undelivered Mail Returned to Sender",
        "The mail system could not deliver your message.",
        sender=("Mail Delivery System", "mailer-daemon@mail.example.com"),
        outcomes=(DONE,),
    ),
    Mail(
        "expired",
        "Question about the delivery",
        "When will the parcel arrive?",
        to=(("Nobody", "nobody@slow.example.net"),),
        outcomes=(EXPIRED,),
    ),
    Mail(
        "waiting",
        "Greetings from Rome",
        "The weather is fine.",
        to=(("Slow", "slow@slow.example.net"),),
        outcomes=(WAIT,),
    ),
    Mail(
        "login",
        "Report of the quarter",
        "Turnover rose by 12 percent.",
        login="anna",
        client="203.0.113.5",
        outcomes=(DONE,),
    ),
    Mail(
        "login-carl",
        "Report, corrected",
        "Turnover rose by 21 percent, not 12.",
        sender=CARL,
        login="carl",
        client="203.0.113.5",
    ),
    Mail(
        "forged",
        "You have won",
        "Send us your password and win a million.",
        sender=("Lottery", "win@example.biz"),
        verdict="forged",
        client="198.51.100.66",
    ),
    Mail(
        "altered",
        "The contract, once more",
        "A changed copy of the contract.",
        verdict="altered",
    ),
    Mail(
        "hr-offer",
        "Offer of employment",
        "We are glad to offer you the position, salary 50,000.",
        sender=("Human Resources", "hr@example.com"),
        to=(CARL,),
        archive=HR,
        login="hr",
        outcomes=(outcome.RELAYED,),
    ),
    Mail(
        "hr-leave",
        "Leave request",
        "I would like to take leave in August.",
        sender=CARL,
        to=(("Human Resources", "hr@example.com"),),
        archive=HR,
        outcomes=(DONE,),
    ),
    Mail(
        "hr-warning",
        "Written warning",
        "This is a written warning.",
        sender=("Human Resources", "hr@example.com"),
        to=(EVE,),
        bcc=("secret@example.com",),
        archive=HR,
    ),
    Mail(
        "german",
        "Grüße aus München",
        "Die Straße zur Oper ist gesperrt. Schöne Grüße, Jürgen Müller",
        sender=("Jürgen Müller", "mueller@example.de"),
    ),
    Mail(
        "german-plain",
        "Gruesse aus Muenchen",
        "Die Strasse ist wieder frei.",
        sender=("Juergen Mueller", "mueller@example.de"),
    ),
    Mail(
        "french",
        "Réunion à l'école",
        "Le café est déjà prêt, bon appétit.",
        sender=("Élodie Lefèvre", "elodie@example.fr"),
        html=True,
    ),
    Mail(
        "spanish",
        "Mañana en el jardín",
        "El niño corre por el jardín mañana.",
        sender=("José Núñez", "jose@example.es"),
    ),
    Mail(
        "turkish",
        "İstanbul gezisi",
        "Yarın İstanbul'a gidiyoruz, ışıklar güzel.",
        sender=("Ayşe", "ayse@example.com.tr"),
    ),
    Mail(
        "polish",
        "Zażółć gęślą jaźń",
        "Pchnąć w tę łódź jeża.",
        sender=("Łukasz", "lukasz@example.pl"),
    ),
    Mail(
        "czech",
        "Příliš žluťoučký kůň",
        "Úpěl ďábelské ódy.",
        sender=("Žofie", "zofie@example.cz"),
    ),
    Mail(
        "greek",
        "Καλημέρα από την Αθήνα",
        "Η συνάντηση είναι την Τρίτη στην Αθήνα.",
        sender=("Γιώργος", "giorgos@example.gr"),
    ),
    Mail(
        "russian",
        "Договор поставки",
        "Прошу подписать договор до пятницы.",
        sender=OLGA,
    ),
    Mail(
        "russian-re",
        "Re: Договор поставки",
        "Договор подписан, счёт прилагается.",
        to=(OLGA,),
        files=(("счёт.pdf", "application/pdf", 300),),
    ),
    Mail(
        "ukrainian",
        "Зустріч у Києві",
        "Їжак і ґава зустрілися в Києві.",
        sender=("Олена", "olena@example.ua"),
    ),
    Mail(
        "hebrew",
        "שלום עולם",
        "הפגישה תתקיים ביום שלישי.",
        sender=("דוד", "david@example.il"),
    ),
    Mail(
        "arabic",
        "مرحبا بالعالم",
        "الاجتماع يوم الثلاثاء في القاهرة.",
        sender=("أحمد", "ahmed@example.eg"),
    ),
    Mail(
        "hindi",
        "नमस्ते दुनिया",
        "बैठक मंगलवार को दिल्ली में है।",
        sender=("राज", "raj@example.in"),
    ),
    Mail(
        "thai",
        "สวัสดีชาวโลก",
        "ประชุมวันอังคารที่กรุงเทพ",
        sender=("สมชาย", "somchai@example.th"),
    ),
    Mail("chinese", "合同草案", "请在星期五之前签署合同。东京会议推迟了。", sender=LI),
    Mail(
        "chinese-re",
        "回复：合同草案",
        "合同已经签署。发票见附件。",
        to=(LI,),
        files=(("发票.pdf", "application/pdf", 200),),
    ),
    Mail(
        "chinese-traditional",
        "臺北會議",
        "會議將於星期二在臺北舉行。",
        sender=("王大明", "wang@example.tw"),
    ),
    Mail(
        "chinese-mixed", "iPhone价格", "iPhone手机的价格是5000元，请确认。", sender=LI
    ),
    Mail(
        "japanese",
        "東京での会議",
        "東京タワーの近くで会議を開きます。資料は添付します。",
        sender=YUKI,
        files=(
            (
                "資料.xlsx",
                XLSX,
                700,
            ),
        ),
    ),
    Mail(
        "japanese-kyoto",
        "京都旅行",
        "来週、京都へ旅行します。東の寺を見ます。",
        sender=YUKI,
    ),
    Mail(
        "japanese-kana",
        "カタカナのテスト",
        "ﾊﾝｶｸｶﾅとＦＵＬＬ　ＷＩＤＴＨの文字。",
        sender=YUKI,
    ),
    Mail(
        "japanese-metro",
        "東京都の天気",
        "東京都は晴れ、気温は２０度です。",
        sender=YUKI,
        html=True,
    ),
    Mail(
        "korean",
        "서울 회의",
        "서울에서 회의가 화요일에 있습니다.",
        sender=("김철수", "kim@example.kr"),
    ),
    Mail(
        "korean-re",
        "답장: 서울 회의",
        "회의실을 예약했습니다. 감사합니다.",
        sender=BOB,
        to=(("김철수", "kim@example.kr"),),
    ),
    Mail("emoji", "Party 🎉 tonight", "See you at eight 🍕🍺 naïve café", to=(EVE,)),
    Mail(
        "code",
        "Patch for parser.c",
        "int main(void) { return foo_bar(42); } /* see http://example.com/a?b=c */",
        sender=CARL,
        files=(("fix.patch", "text/x-patch", 120),),
    ),
    Mail(
        "numbers",
        "Order 2026-0815",
        "Order number 2026-0815, phone +49 89 123456, IBAN DE44500105175407324931.",
    ),
    Mail("quotes", 'He said "hello, world"', "It's a dog's life; rock'n'roll."),
    Mail("operators", "AND OR NOT", "To be OR NOT to be, that is the question. TO"),
    Mail(
        "null-sender",
        "Vacation: away",
        "I am on vacation.",
        sender=BOB,
        envelope_sender="",
        to=(("Anna Meier", "anna.meier@example.org"),),
    ),
    Mail(
        "many",
        "Invitation",
        "You are invited to the ball.",
        to=tuple((f"Guest {n}", f"guest{n}@example.com") for n in range(1, 31)),
        bcc=("guest99@example.com",),
    ),
    Mail(
        "upper",
        "URGENT: SERVER DOWN",
        "THE SERVER IS DOWN SINCE NOON.",
        to=(("Bob", "BOB@EXAMPLE.COM"),),
    ),
    Mail(
        "plus",
        "Tagged address",
        "Mail to a tagged address.",
        to=(("Bob", "bob+tag@example.com"),),
    ),
    Mail(
        "subdomain",
        "From a branch",
        "Hello from the branch office.",
        sender=("Branch", "info@branch.example.org"),
    ),
    Mail(
        "zip",
        "Backup of the server",
        "The backup is in the archive.",
        files=(
            ("backup 2026.tar.gz", "application/gzip", 2500),
            ("README", "text/plain", 10),
        ),
    ),
    Mail("no-subject", "", "A message without a subject about penguins."),
    Mail(
        "medium",
        "Minutes of the meeting",
        "Minutes of the team meeting: budget, hiring, office.",
        padding=20_000,
        cc=(CARL, EVE),
    ),
    Mail("friday", "Friday", "See you on Friday. The Friday meeting is moved."),
    Mail(
        "hyphen",
        "E-mail and co-operation",
        "State-of-the-art e-mail co-operation, up-to-date.",
    ),
    Mail(
        "last", "The last message", "This is the end of the archive.", outcomes=(DONE,)
    ),
    Mail(
        "danish",
        "Blåbærgrød på Ærø",
        "Smørrebrød, æbler og øl til sønner og døtre, siger Þórður.",
        sender=("Søren Bjørn", "soren@example.dk"),
        list_id="medlemmer.example.dk",
        list_name='"Dansk forening i Kiel"',
    ),
    Mail(
        "vietnamese",
        "Hẹn gặp ở Đà Nẵng",
        "Cuộc họp đã được dời sang thứ Sáu.",
        sender=("Đặng Minh", "minh@example.vn"),
    ),
    Mail(
        "hebrew-points",
        "הַזְמָנָה לַחֲתֻנָּה",
        "אָנוּ שְׂמֵחִים לְהַזְמִין אֶתְכֶם.",
        sender=("רוּת", "ruth@example.il"),
    ),
    Mail(
        "arabic-vowels",
        "عَقْدُ الإِيجَارِ",
        "كـــتاب جَدِيدٌ عَلَى الطَّاوِلَةِ",
        sender=("فَاطِمَة", "fatima@example.eg"),
    ),
    Mail(
        "link",
        "Have a look",
        "The plan is here:",
        html=True,
        link="https://files.example.net/secret-plan?id=0815",
    ),
    Mail(
        "preamble",
        "Two parts",
        "See the file.",
        preamble="This is a multi-part message in MIME format.\nHidden tulips.",
        files=(("map.png", "image/png", 60),),
    ),
    Mail("hyphenation", "Long words", "Donau\u00addampf\u00adschiff"),
)

MAILS = tuple(Mail(**{**each.__dict__, "number": n}) for n, each in enumerate(_MAILS))
BY_ID = {each.archive_id: each for each in MAILS}


@dataclass(frozen=True)
class Supplement(Mail):
    """The message of a mail once more, to another recipient."""

    recipient: str = ""

    @property
    def queue_id(self) -> str:
        return f"4Zs{self.number:02d}Later"

    @property
    def recipients(self) -> list[str]:
        return [self.recipient]

    @property
    def message(self) -> bytes:
        return MAILS[self.number].message


def supplement(mail: Mail, recipient: str) -> Supplement:
    """A mail that comes once more, to another recipient."""
    return Supplement(**{**mail.__dict__, "outcomes": ()}, recipient=recipient)


def store_all(directory: Path) -> None:
    """Archive all mails."""
    for each in MAILS:
        each.store_in(directory)


def sha256_of(mail: Mail) -> str:
    """The SHA-256 of a mail in hexadecimal digits."""
    return examples.sha256(mail.message).hex()
