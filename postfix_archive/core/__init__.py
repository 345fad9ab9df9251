"""What is decided: values in, values out. No clock, no disk, no network here."""
