"""All exceptions of this program, each with its DSN status.

While mail is processed each of them means defer: exit code 75 (EX_TEMPFAIL), which
pipe(8) retries, and a 4.x.x status, since pipe(8) bounces on output that begins with
5.x.x whatever the exit code is; tests/unit/test_errors.py checks that. A command ends
with exit code 1.

    ArchiveError
     +-- SettingInvalid, SettingsUnreadable       archive.cf
     +-- KeyMissing, KeyUnreadable                the key file
     +-- ArgumentsInvalid                         arguments that pipe(8) would not pass
     +-- RequestInvalid                           not an archive address
     +-- CapsuleBroken, SealInvalid               mail to the archive transport
     +-- MessageIncomplete                        stdin ended before the message did
     +-- SpoolFailed                              temporary files of large messages
     +-- PostfixUnreachable, PostfixRefused       Postfix's internal ports
     +-- StoreFailed, JournalFailed               the store
     |    +-- CopyUnreachable
     +-- OutcomePending                           archive_wait_for_outcome
     +-- WriteThroughFailed                       write-through to the store
     |    +-- WriteThroughTimeout, WriteThroughSkipped
     +-- DeadlineExceeded                         archive_time_limit
     +-- RecordNotFound, RecordDamaged            commands that read the store
     |    +-- RecordRemoved
     +-- HoldRefused, EraseRefused                postfix-archive hold, erase
     +-- PersonUnknown                            what two people must decide
     +-- ExportFailed, ImportFailed, ReplayFailed export, import, replay
     +-- LogUnreadable, FollowerRunning           Postfix's log
     +-- PostfixMissing, PostfixCommandFailed     Postfix's commands
     +-- InstallRefused, InstallFailed            make install
     +-- ReferenceMissing                         master.cf.d of this program
     +-- BypassRefused                            postfix-archive bypass
     +-- AcceptanceInvalid                        postfix-archive reconcile --accept
     +-- TableInvalid                             ARCHIVE tables
     +-- NotRoot                                  commands that only root may run
     +-- ReasonMissing, AccessNotRecorded         commands that read archived mail
     +-- AccessServiceFailed                      postfix-archive access-service
     +-- DecisionRefused                          decisions of the web page
     +-- IndexFailed, IndexMissing                the index for searching
     |    +-- IndexDamaged
     +-- IndexerRunning                           postfix-archive index
     +-- QueryInvalid, LibraryMissing             postfix-archive search
     +-- ObjectStoreFailed, ReplicatorRunning     postfix-archive replicate
     |    +-- ObjectMissing
     +-- RestoreFailed                            postfix-archive restore
     +-- RetentionRuleInvalid, PurgeRefused       postfix-archive retention, purge
     +-- RecordHeld                               a legal hold covers the record
     +-- SealFailed, TimeStampFailed              postfix-archive seal, verify --seals
     +-- WebServerFailed                          postfix-archive web
     +-- WebDatabaseFailed, AccessRefused         the web page
     +-- LoginFailed, UserInvalid, SavedSearchInvalid
     |    +-- PasswordWrong, LoginDelayed, DirectoryFailed
"""


class ArchiveError(Exception):
    """One line of text: what happened, to what, what to do next."""

    dsn = "4.3.0"


class SettingInvalid(ArchiveError):
    """A line of archive.cf is invalid."""

    dsn = "4.3.5"


class SettingsUnreadable(ArchiveError):
    """archive.cf exists and cannot be read."""

    dsn = "4.3.5"


class KeyMissing(ArchiveError):
    """There is no site key to stamp and seal with."""

    dsn = "4.3.5"


class KeyUnreadable(ArchiveError):
    """The key file exists and cannot be read or parsed."""

    dsn = "4.3.5"


class ArgumentsInvalid(ArchiveError):
    """The arguments are not those of our pipe(8) entry in master.cf."""

    dsn = "4.3.5"


class RequestInvalid(ArchiveError):
    """A request names something that is not an archive address."""

    dsn = "4.3.5"


class CapsuleBroken(ArchiveError):
    """Mail to the archive transport is not a whole capsule."""

    dsn = "4.6.0"


class SealInvalid(ArchiveError):
    """The seal of a capsule was not made with a key of this site."""

    dsn = "4.7.0"


class MessageIncomplete(ArchiveError):
    """A message or capsule was cut short; only a part of it was read."""


class SpoolFailed(ArchiveError):
    """The message could not be read, or its temporary file not be written."""


class PostfixUnreachable(ArchiveError):
    """No connection to an internal port of Postfix, or the connection was lost."""

    dsn = "4.4.1"


class PostfixRefused(ArchiveError):
    """An internal port of Postfix rejected a command."""


class StoreFailed(ArchiveError):
    """The store could not be written or read."""


class CopyUnreachable(StoreFailed):
    """A copy is in the object storage alone, which cannot be read now."""


class JournalFailed(ArchiveError):
    """The journal of an archive could not be written or read."""


class OutcomePending(ArchiveError):
    """A copy is deferred until the outcome of its message is known."""


class WriteThroughFailed(ArchiveError):
    """A copy could not be written through to the store; it is sent as a capsule."""


class WriteThroughTimeout(WriteThroughFailed):
    """The store did not finish within the time for which mail may wait."""


class WriteThroughSkipped(WriteThroughFailed):
    """Not tried: the message is large, or the store was slow a moment ago."""


class DeadlineExceeded(ArchiveError):
    """Processing took longer than archive_time_limit."""

    dsn = "4.4.7"


class LogUnreadable(ArchiveError):
    """Postfix's log cannot be found or read."""


class FollowerRunning(ArchiveError):
    """Another process already follows the log of this instance."""


class RecordNotFound(ArchiveError):
    """The store has no record with this id."""


class RecordRemoved(RecordNotFound):
    """The record was purged or erased, and the index does not know it yet."""


class RecordDamaged(ArchiveError):
    """A file of the store does not have the content that was stored."""


class TableInvalid(ArchiveError):
    """A table with ARCHIVE actions cannot be compiled or written."""


class PostfixMissing(ArchiveError):
    """There is no Postfix on this host."""


class PostfixCommandFailed(ArchiveError):
    """A command of Postfix ended with an error."""


class InstallRefused(ArchiveError):
    """The installation is not possible as requested; nothing was changed."""


class InstallFailed(ArchiveError):
    """The installation failed; the earlier configuration was restored."""


class ReferenceMissing(ArchiveError):
    """A file of master.cf.d, the reference for install and doctor, is missing."""


class BypassRefused(ArchiveError):
    """The bypass cannot be turned on or off in the present state."""


class AcceptanceInvalid(ArchiveError):
    """What unarchived mail is accepted cannot be read, written or changed like this."""


class NotRoot(ArchiveError):
    """A command that only root may run was run by another user."""


class ReasonMissing(ArchiveError):
    """archive_require_reason is set, and a command was given no reason."""


class AccessNotRecorded(ArchiveError):
    """Archived mail is not shown, because that could not be recorded."""


class AccessServiceFailed(ArchiveError):
    """The access service cannot start, or gives no answer."""


class DecisionRefused(ArchiveError):
    """A user of the web page may not have this carried out."""


class IndexFailed(ArchiveError):
    """A database of the index could not be written or read."""


class IndexDamaged(IndexFailed):
    """A database of the index is damaged, or of another version of this program.

    ``path`` is that of the database.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class IndexerRunning(ArchiveError):
    """Another process already writes the index of this instance."""


class IndexMissing(ArchiveError):
    """There is no index to search."""


class LibraryMissing(ArchiveError):
    """A Python package of an extra in setup.cfg is not installed."""


class QueryInvalid(ArchiveError):
    """A query does not follow the query language.

    ``query`` is the whole query, ``position`` the number of characters before the place
    of the error.
    """

    def __init__(self, reason: str, query: str, position: int) -> None:
        super().__init__(reason, query, position)
        self.reason = reason
        self.query = query
        self.position = position

    def __str__(self) -> str:
        return self.reason


class ObjectStoreFailed(ArchiveError):
    """The object storage is not reachable, refuses, or is not set up."""


class ObjectMissing(ObjectStoreFailed):
    """The object storage has no object of this key."""


class ReplicatorRunning(ArchiveError):
    """Another process already replicates the store of this instance."""


class RestoreFailed(ArchiveError):
    """A store cannot be rebuilt from the object storage."""


class RetentionRuleInvalid(ArchiveError):
    """A line of archive.retention cannot be read as a rule; nothing is removed."""


class PurgeRefused(ArchiveError):
    """Nothing is removed: the clock is in doubt, or too much would be at once."""


class RecordHeld(ArchiveError):
    """A record is not removed, since legal holds cover it."""


class HoldRefused(ArchiveError):
    """A hold cannot be set, shown or released as asked."""


class EraseRefused(ArchiveError):
    """A message cannot be erased as asked."""


class PersonUnknown(ArchiveError):
    """Who runs a command that two different people must run is not known."""


class ExportFailed(ArchiveError):
    """The target of an export cannot be used or written."""


class ImportFailed(ArchiveError):
    """Something that should be imported cannot be read."""


class ReplayFailed(ArchiveError):
    """Archived mail cannot be given to Postfix again."""


class SealFailed(ArchiveError):
    """The store cannot be sealed, or a seal not be delivered."""


class TimeStampFailed(ArchiveError):
    """An RFC 3161 authority gives no time stamp, or a stamp is invalid."""


class WebServerFailed(ArchiveError):
    """The web page cannot be served where web_listen says."""


class WebDatabaseFailed(ArchiveError):
    """The database of the web page could not be opened, read or written."""


class LoginFailed(ArchiveError):
    """Somebody cannot log in at the web page; the text is for that person."""


class SavedSearchInvalid(ArchiveError):
    """A search cannot be saved at the web page; the text is for its user."""


class PasswordWrong(LoginFailed):
    """The password is not that of the name, which is known."""


class LoginDelayed(LoginFailed):
    """After several failures the next attempt must wait; ``seconds`` says how long."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text, seconds)
        self.text = text
        self.seconds = seconds

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class DirectoryFailed(LoginFailed):
    """Who somebody is cannot be asked now: LDAP or OpenID Connect does not answer."""


class UserInvalid(ArchiveError):
    """A user of the web page cannot be added or changed like this."""


class AccessRefused(ArchiveError):
    """A user of the web page may not see or do this."""
