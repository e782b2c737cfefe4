"""A pair of network devices, one in each of two namespaces; packets between them take a while.

Usage: tun-delay.py NAMESPACE NAMESPACE DEVICE MILLISECONDS; prints a line once both devices exist, and runs until killed.
"""

import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
SET_INTERFACE = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
NETWORK_NAMESPACE = 0x40000000


def device(namespace, name):
    entry = os.open("/run/netns/" + namespace, os.O_RDONLY)
    if libc.setns(entry, NETWORK_NAMESPACE):
        raise OSError(ctypes.get_errno(), "setns")
    made = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(made, SET_INTERFACE, struct.pack("16sH14x", name.encode(), TUN_WITHOUT_HEADER))
    return made


first, second = device(sys.argv[1], sys.argv[3]), device(sys.argv[2], sys.argv[3])
delay = float(sys.argv[4]) / 1000
print("ready", flush=True)
queue = []
count = 0
while True:
    patience = max(0, queue[0][0] - time.monotonic()) if queue else 1
    readable, _, _ = select.select([first, second], [], [], patience)
    for source in readable:
        target = second if source == first else first
        try:
            while True:
                packet = os.read(source, 65536)
                count += 1
                heapq.heappush(queue, (time.monotonic() + delay, count, target, packet))
        except BlockingIOError:
            pass
    while queue and queue[0][0] <= time.monotonic():
        _, _, target, packet = heapq.heappop(queue)
        try:
            os.write(target, packet)
        except OSError:
            pass  # the device is not up yet
