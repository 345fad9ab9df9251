"""archive.cf: syntax, settings, template, and the key file."""
