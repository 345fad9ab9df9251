"""The archive transport: capsule, store, mail; import of the fallback directory."""
