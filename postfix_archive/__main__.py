"""Runs the command postfix-archive: python -m postfix_archive."""

from postfix_archive.front.cli import main

main(prog_name="postfix-archive")
