"""Runs the command postfix-archive: python -m postfix_archive."""

from postfix_archive.cli.main import main

main(prog_name="postfix-archive")
