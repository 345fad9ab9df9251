"""A mail archive for Postfix hosts that uses only Postfix's own hooks.

Three floors, ``front -> core <- back``: front speaks with the outside and decides
nothing, core is pure, back makes things true. docs/how-it-works.md has the way of
a message.
"""

__version__ = "0.1.0"
