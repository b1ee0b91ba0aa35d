"""Runs a command in a pseudo-terminal and copies what it shows; exits as the command does.

usage: terminal.py COLUMNS OUTPUT [--interrupt-at TEXT] -- COMMAND…

With --interrupt-at, Ctrl-C is typed once the command has shown that text.
"""

import fcntl
import os
import pty
import struct
import sys
import termios

columns, output = int(sys.argv[1]), sys.argv[2]
split = sys.argv.index("--")
interrupt_at = sys.argv[4].encode() if sys.argv[3] == "--interrupt-at" else None
command = sys.argv[split + 1 :]

child, terminal = pty.fork()
if child == 0:
    # Sized before anything is shown.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    os.execvp(command[0], command)

shown = b""
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    shown += part
    if interrupt_at is not None and interrupt_at in shown:
        os.write(terminal, b"\x03")
        interrupt_at = None
with open(output, "wb") as file:
    file.write(shown)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status) & 255)
