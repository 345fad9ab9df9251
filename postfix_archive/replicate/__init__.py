"""Replication of the store to an object storage (S3), and the way back."""
