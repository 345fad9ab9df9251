"""The pages where officers decide: holds, erasures, replay."""
