"""usage: listening.py COMMAND…

Runs COMMAND in place of this, with a socket that listens on a free port of this namespace's loopback, handed over as service managers do
(LISTEN_FDS): what runs in a network namespace of its own can so be looked at from outside.
"""

import os
import socket
import sys

FIRST = 3  # where service managers put the first one

server = socket.create_server(("127.0.0.1", 0))
if server.fileno() != FIRST:
    os.dup2(server.fileno(), FIRST)
os.set_inheritable(FIRST, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[1], sys.argv[1:])
