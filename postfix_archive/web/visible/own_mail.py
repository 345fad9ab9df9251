"""Restricts a query to the mail of one person, so that nothing of others shows.

Used by archives for users with the role own. A message is theirs if its
envelope or header names one of their addresses. What only the envelope tells of others
(blind recipients, their number, outcomes) must not be found out by searching for it
either: such conditions are refused, or ask the header instead. Pure. Raises
QueryInvalid.
"""

from __future__ import annotations

from collections.abc import Sequence

from postfix_archive.errors import QueryInvalid
from postfix_archive.search import index_entry
from postfix_archive.search.query_nodes import All, Any, Node, Not, Range, Word

OWN_FIELDS = ("sender", "rcpt", "from", "to", "cc")
NOTHING = Any(())
# All that both sides of a message can see in it.
ALLOWED_FIELDS = frozenset(
    {
        *("", "after", "archive", "archived", "before", "body", "cc", "date", "file"),
        *("from", "has", "id", "list", "msgid", "newer_than", "older_than"),
        *("sent", "subject", "to", "type"),
    }
)
# What is asked instead of the envelope, which has also what came later: somebody sent
# the message on, and to whom.
IN_HEADER = {"rcpt": ("to", "cc"), "bcc": (), "sender": ("from",)}


def restrict(node: Node, query: str, addresses: Sequence[str]) -> Node:
    """Return the node that finds those hits of a query that are of these addresses."""
    own = tuple(Word(f, each, 0) for each in addresses for f in OWN_FIELDS)
    return All((_Restriction(query, addresses).node(node), Any(own)))


class _Restriction:
    def __init__(self, query: str, addresses: Sequence[str]) -> None:
        self._query = query
        self._addresses = frozenset(map(index_entry.normalize_name, addresses))

    def node(self, node: Node) -> Node:
        """Return a node with no condition on what others must not see."""
        match node:
            case All():
                return All(tuple(map(self.node, node.parts)))
            case Any():
                return Any(tuple(map(self.node, node.parts)))
            case Not():
                return Not(self.node(node.part))
            case Word() if node.field in IN_HEADER:
                return self._in_header(node)
            case Word() | Range() if node.field in ALLOWED_FIELDS:
                if node.field == "has" and isinstance(node, Word):
                    self._require_attachment(node)
                return node
        raise self._refused(node, f"{node.field}:")

    def _in_header(self, word: Word) -> Node:
        """Ask the header instead of the envelope, unless it is their own address."""
        is_own = index_entry.normalize_name(word.text) in self._addresses
        if is_own and not word.is_prefix:
            return word
        if not word.text:  # sender:<>
            return NOTHING
        return Any(tuple(word._replace(field=each) for each in IN_HEADER[word.field]))

    def _require_attachment(self, word: Word) -> None:
        if word.text.lower().removesuffix("s") != "attachment":
            raise self._refused(word, f"has:{word.text}")

    def _refused(self, node: Word | Range, condition: str) -> QueryInvalid:
        return QueryInvalid(
            f"{condition} is for auditors: it asks for what your mail does not show",
            self._query,
            min(node.position, len(self._query)),
        )
