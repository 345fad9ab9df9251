"""Mail of other archives and mailboxes, brought into the store."""
