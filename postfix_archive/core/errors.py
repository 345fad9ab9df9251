"""Everything that can go wrong, each with its own verdict.

Used by every room. The base class means *wait*: exit code 75 (EX_TEMPFAIL), the one
that pipe(8) retries, and a 4.x.x status, since output that begins with 5.x.x would
make pipe(8) bounce whatever the exit code says. No class here may say anything else
about mail in flight; tests/unit/test_errors.py holds them to it.

    ArchiveError
     +-- SettingWrong, SettingsUnreadable        archive.cf
     +-- KeyMissing, KeyUnreadable               the key file
     +-- ArgumentsWrong                          argv that pipe(8) would not send
     +-- RequestUnusable                         a request that names no archive
     +-- CapsuleBroken, SealWrong                what reached the archive transport
     +-- SpoolFailed                             the place for large messages
     +-- HandBackUnreachable, HandBackRefused    Postfix's internal ports
     +-- StoreFailed, JournalFailed              the store
     +-- OutcomeAwaited                          archive_wait_for_outcome
     +-- NotAtOnce                               the store, asked while mail waits
     |    +-- TooLate
     +-- DeadlineOver                            our own time limit
     +-- RecordNotFound, RecordDamaged           commands that read
     +-- LogUnreadable, FollowerAtWork           Postfix's log
     +-- PostfixMissing, PostfixCommandFailed    Postfix's own commands
     +-- InstallRefused, InstallFailed           make install
     +-- BypassRefused                           postfix-archive bypass
     +-- TableWrong                              the command tables
     +-- NotRoot                                 commands for root alone
"""

ALARM = "ALARM:"  # begins what the postmaster must see; the same word, for grep


class ArchiveError(Exception):
    """Says in one line what happened, to what, and what to do next."""

    dsn = "4.3.0"
    exit_code = 75


class SettingWrong(ArchiveError):
    """A line of archive.cf cannot be used."""

    dsn = "4.3.5"


class SettingsUnreadable(ArchiveError):
    """archive.cf is there and cannot be read."""

    dsn = "4.3.5"


class KeyMissing(ArchiveError):
    """There is no site key, so nothing can be stamped or sealed."""

    dsn = "4.3.5"


class KeyUnreadable(ArchiveError):
    """The key file is there and cannot be used."""

    dsn = "4.3.5"


class ArgumentsWrong(ArchiveError):
    """The command line is not one that pipe(8) makes from our master.cf entry."""

    dsn = "4.3.5"


class RequestUnusable(ArchiveError):
    """A request for archiving names something that cannot be an archive address."""

    dsn = "4.3.5"


class CapsuleBroken(ArchiveError):
    """What came to the archive transport is no capsule, or only a part of one."""

    dsn = "4.6.0"


class SealWrong(ArchiveError):
    """A capsule whose seal was not made with a key of this site."""

    dsn = "4.7.0"


class SpoolFailed(ArchiveError):
    """The message could not be read, or not be set aside while it is worked on."""


class HandBackUnreachable(ArchiveError):
    """An internal port of Postfix does not answer, or the connection broke."""

    dsn = "4.4.1"


class HandBackRefused(ArchiveError):
    """An internal port of Postfix answered something else than yes."""


class StoreFailed(ArchiveError):
    """The store could not take a copy, or could not be read."""


class JournalFailed(ArchiveError):
    """The journal of an archive could not be written or read."""


class OutcomeAwaited(ArchiveError):
    """A copy is kept back until it is known what became of its message."""


class NotAtOnce(ArchiveError):
    """A copy could not go straight into the store: it goes as a capsule."""


class TooLate(NotAtOnce):
    """The store was not done in the time for which mail waits."""


class DeadlineOver(ArchiveError):
    """The work took longer than archive_time_limit."""

    dsn = "4.4.7"


class LogUnreadable(ArchiveError):
    """Postfix's log cannot be found or read."""

    exit_code = 1


class FollowerAtWork(ArchiveError):
    """Another process follows the log of this instance already."""

    exit_code = 1


class RecordNotFound(ArchiveError):
    """No record of that id is in the store."""

    exit_code = 1


class RecordDamaged(ArchiveError):
    """A file of the store does not hold what it should."""

    exit_code = 1


class TableWrong(ArchiveError):
    """A table with ARCHIVE lines cannot be compiled, or not be written."""

    exit_code = 1


class PostfixMissing(ArchiveError):
    """There is no Postfix on this host."""

    exit_code = 1


class PostfixCommandFailed(ArchiveError):
    """One of Postfix's own commands ended with an error."""

    exit_code = 1


class InstallRefused(ArchiveError):
    """An installation that cannot be done as asked for; nothing was changed."""

    exit_code = 1


class InstallFailed(ArchiveError):
    """An installation that failed on its way; the configuration was put back."""

    exit_code = 1


class BypassRefused(ArchiveError):
    """The gate past the archive cannot be opened or closed as things are."""

    exit_code = 1


class NotRoot(ArchiveError):
    """A command that only root can run was run by somebody else."""

    exit_code = 1
