"""Lets mail pass unarchived on an admin's order, and records the period."""
