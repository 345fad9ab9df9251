"""How Postfix hands mail in: the launcher, pipe(8) arguments, the LMTP worker."""
