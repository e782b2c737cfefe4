"""What a hostile tool would try: `attack.py HOME DAEMON_PID [NAME]` prints as JSON which attempts, or whether NAME, succeeded."""

import ctypes
import json
import os
import signal
import sys

home, daemon = sys.argv[1], int(sys.argv[2])
only = sys.argv[3] if len(sys.argv) > 3 else None
edge = f"{home}/.aegis/edge"
libc = ctypes.CDLL(None, use_errno=True)
succeeded = {}


def attempt(name, act):
    if only not in (None, name):
        return
    try:
        act()
        succeeded[name] = True
    except OSError as error:
        succeeded[name] = False
        assert error.errno in (1, 13, 18, 26), f"{name}: {error}"  # EPERM, EACCES, EXDEV, ETXTBSY


def call(name, *args):
    if libc[name](*args) == -1:
        raise OSError(ctypes.get_errno(), name)


def read(path):
    with open(path, "rb") as file:
        if not file.read(1):
            raise PermissionError(13, "nothing to read")


def opened(path):
    open(path, "rb").close()


def write(path, mode="ab"):
    with open(path, mode) as file:
        file.write(b"x")


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


def read_memory():
    with open(f"/proc/{daemon}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    here, there = Iovec(ctypes.addressof(buffer), 8), Iovec(start, 8)
    call("process_vm_readv", daemon, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)


attempt("read the key", lambda: read(f"{edge}/node.key"))
attempt("read the key through a symbolic link", lambda: read(f"{home}/link/edge/node.key"))
attempt("read the key through the daemon's root", lambda: read(f"/proc/{daemon}/root{edge}/node.key"))
attempt("read the key through the daemon's folder", lambda: read(f"/proc/{daemon}/cwd/node.key"))
attempt("edit the config", lambda: write(f"{edge}/aegis-config.yaml"))
attempt("empty the config", lambda: os.truncate(f"{edge}/aegis-config.yaml", 0))
attempt("delete the config", lambda: os.unlink(f"{edge}/aegis-config.yaml"))
attempt("make a request file", lambda: write(f"{edge}/run/requests/x.json"))
attempt("move the folder away", lambda: os.rename(f"{home}/.aegis", f"{home}/.moved"))
attempt("move the folder above the unit away", lambda: os.rename(f"{home}/.config", f"{home}/.moved"))
attempt("link the key elsewhere", lambda: os.link(f"{edge}/node.key", f"{home}/projects/key"))
attempt("move the key elsewhere", lambda: os.rename(f"{edge}/node.key", f"{home}/projects/key"))
attempt("write the binary", lambda: write(f"{home}/.local/bin/aegis"))
attempt("replace the binary", lambda: os.rename(f"{home}/projects/a", f"{home}/.local/bin/aegis"))
attempt("write the unit", lambda: write(f"{home}/.config/systemd/user/aegis-edge.service"))
attempt("add to the unit", lambda: write(f"{home}/.config/systemd/user/aegis-edge.service.d/x.conf"))
attempt("read its environment", lambda: read(f"/proc/{daemon}/environ"))
attempt("open its memory", lambda: opened(f"/proc/{daemon}/mem"))
attempt("read its memory", read_memory)
attempt("attach to it", lambda: call("ptrace", 0x4206, daemon, 0, 0))
attempt("follow its descriptors", lambda: os.readlink(f"/proc/{daemon}/fd/0"))
attempt("ask it to end", lambda: os.kill(daemon, signal.SIGTERM))
attempt("kill the launcher", lambda: os.kill(os.getppid(), signal.SIGKILL))
attempt("attach to the launcher", lambda: call("ptrace", 0x4206, os.getppid(), 0, 0))
print(json.dumps(succeeded))
