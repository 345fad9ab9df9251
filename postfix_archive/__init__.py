"""A mail archive for Postfix hosts that uses only Postfix's own interfaces.

One package for each subject; docs/how-it-works.md describes the path of a message.
"""

__version__ = "0.1.0"
