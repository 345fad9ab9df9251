"""Records who read what in an archive, in a chained journal of its own."""
