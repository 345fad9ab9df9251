"""A log that Postfix does not write is no evidence that all is well."""

from __future__ import annotations

import json
import os

import pytest

from mails import mail
from private_postfix import PrivatePostfix

pytestmark = pytest.mark.live
OLD_LINE = "2026-01-02T03:04:05+00:00 mail postfix/qmgr[7]: 4jZFG724PhzK5b4: removed\n"


@pytest.mark.parametrize("content", ["", OLD_LINE])
def test_a_log_that_ends_before_archived_mail_is_named(content: str) -> None:
    with PrivatePostfix() as postfix:
        postfix.send(mail("one"))
        postfix.wait_for_empty_queue()
        assert postfix.run_command("reconcile").returncode == 0
        old_log = postfix.directory / "old.log"
        old_log.write_text(content)
        os.utime(old_log, (1e9, 1e9))
        postfix.postconf(maillog_file=str(old_log))
        process = postfix.run_command("reconcile")
        assert process.returncode == 1
        assert "The log ends before mail that was archived at" in process.stdout
        assert "Totals match" not in process.stdout
        result = json.loads(postfix.run_command("reconcile", "--json").stdout)
        assert result["status"] == "WARNING" and result["archived_after_log"]
        assert "Postfix logs elsewhere" in postfix.run_command("doctor").stdout
