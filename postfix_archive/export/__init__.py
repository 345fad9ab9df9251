"""Archived mail for others: files to hand over, and messages for Postfix again."""
