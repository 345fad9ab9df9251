"""Keeps mail for the archive from expiring in Postfix's queue."""
