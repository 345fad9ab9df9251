#!/usr/bin/python3 -IS
"""Delivers for the tests: writes what pipe(8) hands over to files, byte for byte.

sink.py DIRECTORY QUEUE_ID SENDER RECIPIENTS... ORIGINALS...
"""

import os
import sys

directory, queue_id, *addresses = sys.argv[1:]
content = sys.stdin.buffer.read()
name = f"{directory}/{queue_id}.{os.getpid()}.{os.urandom(4).hex()}"
with open(name + ".draft", "wb") as draft:
    for word in addresses:
        draft.write(os.fsencode(word) + b"\0")
    draft.write(b"\0\0" + content)
os.rename(name + ".draft", name + ".delivered")
