"""Starts the command postfix-archive."""

from postfix_archive.front.cli import main

main(prog_name="postfix-archive")
