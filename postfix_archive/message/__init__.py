"""Message formats, pure: no files, no sockets, no clock."""
