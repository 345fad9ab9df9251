"""The mail log: lines, deliveries, and the queue files in it."""
