"""The stamp filter: captures a message and reinjects it with its stamps."""
