"""Seals: proof from outside that the journals of a store ended so at that time."""
