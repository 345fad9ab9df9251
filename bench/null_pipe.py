"""A filter for pipe(8) that does nothing: gives the message back, and no more.

What any after-queue filter in Python costs at least. As many bare interpreters for a
message as the pipe mode needs: this one, and a second that it starts and waits for.

    python3 -I -S null_pipe.py PORT --sender {SENDER} ... -- RECIPIENTS ORIGINALS
"""

import posix
import sys
from _socket import AF_INET, SOCK_STREAM, socket

DEFER = 75  # EX_TEMPFAIL, sysexits(3)


def reinject(port: int, commands: "list[str]", content: bytes) -> bool:
    """Give the message to the hand-back port; tell whether Postfix has taken it."""
    peer = socket(AF_INET, SOCK_STREAM)
    peer.connect(("127.0.0.1", port))
    read_replies(peer, 1)
    for data, replies in (("EHLO localhost\r\n", 1), ("".join(commands), 0)):
        peer.sendall(data.encode())
        reply = read_replies(peer, replies or len(commands))
    if not reply.splitlines()[-1].startswith(b"354"):
        return False
    peer.sendall(content)
    return read_replies(peer, 1).startswith(b"250")


def read_replies(peer: socket, replies: int) -> bytes:
    """Read so many replies."""
    content = b""
    while len(
        [each for each in content.splitlines() if each[3:4] == b" "]
    ) < replies or (not content.endswith(b"\n")):
        data = peer.recv(65536)
        if not data:
            posix._exit(DEFER)
        content += data
    return content


def main(arguments: "list[str]") -> int:
    """Start the second interpreter, hand back, wait for it."""
    command = [sys.executable, "-I", "-S", "-c", "pass"]
    child = posix.posix_spawn(sys.executable, command, {})
    addresses = arguments[arguments.index("--") + 1 :]
    sender = arguments[arguments.index("--sender") + 1]
    recipients = addresses[: len(addresses) // 2]
    content = sys.stdin.buffer.read().replace(b"\n", b"\r\n")
    content = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    commands = [f"MAIL FROM:<{sender}>\r\n"]
    commands += [f"RCPT TO:<{each}>\r\n" for each in recipients]
    is_accepted = reinject(int(arguments[0]), [*commands, "DATA\r\n"], content)
    posix.waitpid(child, 0)
    return 0 if is_accepted else DEFER


if __name__ == "__main__":
    posix._exit(main(sys.argv[1:]))
