"""Makes the capsule of a message that waits in the queue for native capture.

Used by ``postfix-archive queue rescue``: in native mode a queue file is removed when
its lifetime is over, archived or not. The capsule has the envelope that the worker
would have recorded, as far as postqueue(1) and postcat(1) show it, and the same archive
id: what is archived by both makes one record.
"""

from __future__ import annotations

import time

from postfix_archive.config import archive_cf
from postfix_archive.config.settings import Settings
from postfix_archive.message import capsule, request
from postfix_archive.message.envelope import CLIENT_FIELDS, Client, Recipient
from postfix_archive.postfix.queued_message import QueuedMessage
from postfix_archive.stamp_filter import capture_plan
from postfix_archive.stamp_filter.transaction import macro_value
from postfix_archive.system import spool
from postfix_archive.system.spool import Spool

# Records of a queue file, as postcat(1) names them (mail_proto.h), by field of Client.
CLIENT_ATTRIBUTES = {
    "address": "log_client_address",
    "hostname": "log_client_name",
    "port": "log_client_port",
    "protocol": "log_protocol_name",
    "helo": "log_helo_name",
}
ENVELOPE_ID = "envelope_id"  # ENVID of RFC 3461


class CapsuleMaker:
    """Makes capsules with the settings and keys of this host."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = archive_cf.load_keys(settings)

    def make(
        self, message: QueuedMessage, attributes: dict[str, str], content: Spool
    ) -> Spool | None:
        """Return the capsule of a queued message, None if no archive is asked for.

        attributes are the named attributes of the queue file, content is the message in
        it. Raises SpoolFailed and RequestInvalid.
        """
        delivery = self._delivery_request(message, attributes)
        scan = capture_plan.HeaderScan(
            content.head(),
            delivery,
            self._settings,
            self._keys,
            user_id=archive_cf.mail_owner_uid,
        )
        now = int(time.time())
        plan = capture_plan.make(
            delivery,
            scan,
            content.digests(scan.offsets),
            content.size,
            self._settings,
            self._keys,
            now=now,
        )
        if plan.envelope is None:
            return None
        preamble = capsule.make_preamble(
            plan.envelope, self._keys, sender=self._settings.archive_from, now=now
        )
        packed = Spool()
        for chunk in (preamble, *content.chunks()):
            spool.append(packed, chunk, self._settings.archive_spool_directory)
        return packed

    def _delivery_request(
        self, message: QueuedMessage, attributes: dict[str, str]
    ) -> capture_plan.DeliveryRequest:
        client = {
            name: macro_value(b"client-", _encode(attributes.get(attribute, "")))
            for name, attribute in CLIENT_ATTRIBUTES.items()
        }
        assert client.keys() <= {name for name, _ in CLIENT_FIELDS}
        return capture_plan.DeliveryRequest(
            nexthop=request.CAPTURE_NEXTHOP,
            queue_id=message.queue_id.encode(),
            sender=_encode(message.sender) if message.has_sender else b"",
            recipients=tuple(
                Recipient(_encode(each)) for each in message.internal_recipients
            ),
            client=Client(**client),
            envid=_encode(attributes.get(ENVELOPE_ID, "")),
            keys=self._keys,
        )


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
