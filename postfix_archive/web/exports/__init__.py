"""Exports of what a user may see: pages, jobs, and the child that writes them."""
