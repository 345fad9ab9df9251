"""The order in which several processes take the tests, with pytest-xdist (-n).

One process runs the tests of one group: of a file, or of a file and one transport mode,
since they share an instance. In the files in ALONE each test is a group, so that those
on whole hosts, of a minute each, do not wait for each other; what their module shares,
each process makes for itself. The groups that take longest start first: else they begin
last, and the other processes wait for them. Registered by conftest.py.
"""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from private_postfix import ALL_MODES

LIVE = "tests/live/"
ALONE = {
    "config/test_keys.py",
    "doctor/test_doctor.py",
    "doctor/test_doctor_lmtp.py",
    "install/test_install.py",
    "install/test_install_again.py",
    "install/test_install_dkim.py",
    "install/test_install_lmtp.py",
    "postfix/test_connection_cache.py",
    "rescue/test_rescue.py",
    "stamp_filter/test_amavis.py",
    "test_bench.py",
    "test_load.py",
}
# Seconds that the longest group of each live file took, with 6 processes on 2 cores:
# only the order matters. A file that is not named starts first. From --durations=0.
SECONDS = {
    "install/test_install_again.py": 120,
    "stamp_filter/test_bytes.py": 114,
    "install/test_install.py": 100,
    "install/test_install_web.py": 100,
    "install/test_packages.py": 100,
    "tables/test_tables.py": 93,
    "store/test_permissions.py": 87,
    "outcomes/test_outcomes_hostile.py": 81,
    "outcomes/test_outcome_scenarios.py": 79,
    "stamp_filter/test_busy_host.py": 76,
    "stamp_filter/test_requeue.py": 70,
    "reconcile/test_reconcile_scenarios.py": 68,
    "stamp_filter/test_amavis.py": 61,
    "replicate/test_replicate.py": 60,
    "replicate/test_replicate_faults.py": 60,
    "install/test_install_dkim.py": 60,
    "reconcile/test_reconcile.py": 60,
    "test_load.py": 58,
    "stamp_filter/test_requests.py": 53,
    "test_bench.py": 49,
    "rescue/test_rescue.py": 49,
    "stamp_filter/test_envelope.py": 47,
    "outcomes/test_outcomes_faults.py": 44,
    "install/test_install_lmtp.py": 43,
    "install/test_install_native_dovecot.py": 20,
    "config/test_keys.py": 40,
    "stamp_filter/test_killed.py": 38,
    "status/test_monitoring.py": 36,
    "web/test_every_page.py": 60,
    "web/test_a_days_work.py": 40,
    "web/test_logins.py": 25,
    "web/test_keyboard.py": 20,
    "web/test_proxies.py": 20,
    "web/test_large_mail.py": 40,
    "web/test_replay.py": 10,
    "intake/test_sender_view.py": 34,
    "intake/test_lmtp_raw.py": 33,
    "cli/test_demo.py": 32,
    "stamp_filter/test_once.py": 31,
    "stamp_filter/test_size.py": 30,
    "stamp_filter/test_addresses.py": 29,
    "archive_transport/test_two_capsules_at_once.py": 27,
    "test_attack.py": 26,
    "store/test_erase_nothing.py": 24,
    "cli/test_cli.py": 22,
    "doctor/test_doctor.py": 20,
    "doctor/test_doctor_lmtp.py": 20,
    "postfix/test_expansion.py": 20,
    "stamp_filter/test_identity.py": 19,
    "bypass/test_bypass.py": 18,
    "stamp_filter/test_clock.py": 18,
    "outcomes/test_follower.py": 18,
    "postfix/test_connection_cache.py": 15,
    "stamp_filter/test_write_through.py": 15,
    "intake/test_lmtp.py": 15,
    "store/test_store_faults.py": 14,
    "stamp_filter/test_refused.py": 13,
    "archive_transport/test_copy_readers.py": 12,
    "outcomes/test_outcomes.py": 11,
    "test_storm.py": 10,
    "outcomes/test_wait_for_outcome.py": 10,
    "stamp_filter/test_reload.py": 9,
    "stamp_filter/test_another_host.py": 9,
    "intake/test_lmtp_limits.py": 9,
    "outcomes/test_outcome_report.py": 8,
    "intake/test_errors.py": 8,
    "stamp_filter/test_mappings.py": 7,
    "archive_transport/test_delivery.py": 7,
    "stamp_filter/test_dkim.py": 4,
    "stamp_filter/test_capture.py": 4,
    "stamp_filter/test_sasl.py": 4,
    "cli/test_manual.py": 1,
}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Schedule:
    """Distribute groups in the order in which the tests were collected."""
    config.option.loadscopereorder = False
    return Schedule(config, log)


class Schedule(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process one group after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Put the longest groups first; a run in one process keeps its order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: seconds(item.nodeid), reverse=True)


def group(nodeid: str) -> str:
    """Return the name of the group that a test belongs to."""
    path, _, test = nodeid.partition("::")
    if path.removeprefix(LIVE) in ALONE:
        return nodeid
    parameters = test.partition("[")[2].rstrip("]").split("-")
    return "-".join([path, *(way for way in ALL_MODES if way in parameters)])


def seconds(nodeid: str) -> float:
    """Return how long the longest group of the test's file takes."""
    path = nodeid.partition("::")[0]
    if not path.startswith(LIVE):
        return 0
    return SECONDS.get(path.removeprefix(LIVE), float("inf"))
