"""Listens as a service manager does: prints each message with the process id that the kernel says it comes from."""

import json
import os
import socket
import struct
import sys

path, count = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
listener.bind("\0" + path[1:] if path.startswith("@") else path)
listener.settimeout(20)
print("listening", flush=True)
seen = 0
while seen < count:
    data, ancillary, _, _ = listener.recvmsg(4096, 1024)
    pid = None
    for _, kind, content in ancillary:
        if kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("3i", content[:12])[0]
        else:  # systemd-notify's barrier waits until this descriptor is closed
            for fd in struct.unpack(f"{len(content) // 4}i", content):
                os.close(fd)
    if data == b"BARRIER=1":
        continue
    seen += 1
    print(json.dumps([data.decode(), pid]), flush=True)
