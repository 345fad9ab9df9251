"""The pages about the archives as a whole: their state, and who read what."""
