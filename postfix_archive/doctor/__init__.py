"""The doctor: what could lose, double, delay or reveal mail on this host."""
