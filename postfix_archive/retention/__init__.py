"""Which archived mail is kept, and the only ways in which it is removed."""
