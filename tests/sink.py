#!/usr/bin/python3 -IS
"""Delivers for the tests: writes what pipe(8) hands over to files, byte for byte.

sink.py DIRECTORY QUEUE_ID SENDER RECIPIENTS... ORIGINALS...

Defers what ends because pipe(8) was killed: it may be cut short.
"""

import os
import sys

PF_EXITING = 0x4  # include/linux/sched.h

directory, queue_id, *addresses = sys.argv[1:]
parent = os.getppid()
content = sys.stdin.buffer.read()
try:
    with open(f"/proc/{parent}/stat", encoding="utf-8") as status:
        is_exiting = int(status.read().rpartition(")")[2].split()[6]) & PF_EXITING
except OSError:
    is_exiting = PF_EXITING
if is_exiting or os.getppid() != parent:
    sys.exit(os.EX_TEMPFAIL)
name = f"{directory}/{queue_id}.{os.getpid()}.{os.urandom(4).hex()}"
with open(name + ".draft", "wb") as draft:
    for word in addresses:
        draft.write(os.fsencode(word) + b"\0")
    draft.write(b"\0\0" + content)
os.rename(name + ".draft", name + ".delivered")
