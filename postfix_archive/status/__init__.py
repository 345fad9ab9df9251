"""Numbers of the archive, for people and for Prometheus."""
