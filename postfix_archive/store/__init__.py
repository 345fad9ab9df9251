"""The store: copies, journals, records, verification, the fallback directory."""
