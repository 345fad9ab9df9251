"""Lookup tables with ARCHIVE actions: compiled, and explained."""
