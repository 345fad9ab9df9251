"""Archived mail, decisions and reports as one user may see them."""
