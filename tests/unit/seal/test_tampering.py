"""Claims about tampering: what finds it, and that docs/security.md says so.

76 stores are changed, and each is verified five ways, in some 100 ms.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import tampering
from tampering import ERROR, NO_SEALS, NOTE, NOTHING, Host, Move

Findings = dict[str, tuple[str, ...]]
# What only a witness from outside shows.
BY_SEALS_ALONE = {
    tampering.remove_access,
    tampering.remove_access_and_chain,
    tampering.add_key,
    tampering.replace_key,
}
# The journal names these removals, and nobody can tell whether they were right.
BY_NOTHING = {
    tampering.forge_erasure_in_both_journals,
    tampering.forge_retention_and_purged,
    tampering.release_hold_in_both_journals,
}
# A note would not do: time stamps are what these get around.
IN_VAIN = {
    tampering.forge_history_and_seals,
    tampering.forge_history_and_misname_stamps,
    tampering.forge_history_and_unstamp,
    tampering.forge_later_history_and_unstamp,
}
# Seals of today would do; only who has kept one knows of those before.
BY_WHO_KEPT_SEALS = {tampering.roll_back}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    with tampering.hosts(tmp_path_factory.mktemp("tampering")) as pair:
        return {each.text: tampering.find(each, *pair) for each in tampering.MOVES}


def test_the_page_has_the_table_of_what_was_found(findings: Findings) -> None:
    assert tampering.page_table() == tampering.table(findings), "make tampering"
    assert len(findings) == len(tampering.MOVES) >= 45


@pytest.mark.parametrize("move", tampering.MOVES, ids=lambda move: move.make.__name__)
def test_a_move_is_found_by_what_it_should_be(move: Move, findings: Findings) -> None:
    verify, script, seals, script_with_seals, kept = findings[move.text]
    if move.make in BY_NOTHING:
        assert set(findings[move.text]) == {NOTHING}
        return
    if move.make in IN_VAIN:
        assert seals == ERROR
    if move.is_about_seals:
        assert verify == script == NO_SEALS
    elif move.make not in BY_SEALS_ALONE:
        assert verify in (ERROR, NOTE)
    if move.make not in BY_WHO_KEPT_SEALS:
        assert seals in (ERROR, NOTE)
    else:
        assert kept == ERROR
    if script == ERROR:
        assert script_with_seals == ERROR


def test_nothing_is_found_where_nothing_was_done(tmp_path: Path) -> None:
    with tampering.hosts(tmp_path) as (plain, sealed):
        assert tampering.verify(plain) == tampering.run_script(plain) == NOTHING
        kept = ("--seal-file", str(sealed.kept))
        assert tampering.verify(sealed, "--seals", *kept) == NOTHING
        assert tampering.run_script(sealed) == NOTHING
        assert is_restored(sealed)


def is_restored(host: Host) -> bool:
    """Whether restore() leaves nothing of a move."""
    tampering.remove_archive(host)
    host.restore()
    return tampering.verify(host, "--seals") == NOTHING
