"""A filter for pipe(8) that does nothing: gives the message back, and no more.

What any after-queue filter in Python costs at least. As many bare interpreters for a
message as the pipe door needs: this one, and a second that it starts and waits for.

    python3 -I -S null_pipe.py PORT --sender {SENDER} ... -- RECIPIENTS ORIGINALS
"""

import posix
import sys
from _socket import AF_INET, SOCK_STREAM, socket

DEFER = 75  # EX_TEMPFAIL, sysexits(3)


def give_back(port: int, commands: "list[str]", content: bytes) -> bool:
    """Give the message to the hand-back port; tell whether Postfix has taken it."""
    peer = socket(AF_INET, SOCK_STREAM)
    peer.connect(("127.0.0.1", port))
    said(peer, 1)
    for words, replies in (("EHLO localhost\r\n", 1), ("".join(commands), 0)):
        peer.sendall(words.encode())
        reply = said(peer, replies or len(commands))
    if not reply.splitlines()[-1].startswith(b"354"):
        return False
    peer.sendall(content)
    return said(peer, 1).startswith(b"250")


def said(peer: socket, replies: int) -> bytes:
    """Read so many replies."""
    held = b""
    while len([each for each in held.splitlines() if each[3:4] == b" "]) < replies or (
        not held.endswith(b"\n")
    ):
        read = peer.recv(65536)
        if not read:
            posix._exit(DEFER)
        held += read
    return held


def main(words: "list[str]") -> int:
    """Start the second interpreter, hand back, wait for it."""
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    second = posix.posix_spawn(sys.executable, bare, {})
    given = words[words.index("--") + 1 :]
    sender = words[words.index("--sender") + 1]
    recipients = given[: len(given) // 2]
    content = sys.stdin.buffer.read().replace(b"\n", b"\r\n")
    content = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    commands = [f"MAIL FROM:<{sender}>\r\n"]
    commands += [f"RCPT TO:<{each}>\r\n" for each in recipients]
    taken = give_back(int(words[0]), [*commands, "DATA\r\n"], content)
    posix.waitpid(second, 0)
    return 0 if taken else DEFER


if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))
