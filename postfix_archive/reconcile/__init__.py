"""Compares what Postfix accepted, as its log says, with what is archived."""
