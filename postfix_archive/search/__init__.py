"""Finding messages: the text of a message, the index, the query language.

Derived from the store and never altering it. Used by the commands.
"""
