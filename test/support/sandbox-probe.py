"""What a tool can do inside the service's sandbox: `sandbox-probe.py [NAME...]` prints as JSON which acts succeeded.

The test prepares what permissions alone would allow: /usr/local/open and /etc/open writable by everybody, /home/other
readable, /tmp/of-others and /dev/of-others there, ~/.ssh/id_ed25519 of the user's own. `int80` lies beside this file.
FAMILY is a kind of socket that the kernel has, KEYRING the session keyring of the user's other services.
"""

import ctypes
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time

libc = ctypes.CDLL(None, use_errno=True)
home = os.path.expanduser("~")
probes = {}


def probe(name):
    def register(act):
        probes[name] = act

    return register


def call(name, *args):
    if getattr(libc, name)(*args) == -1:
        raise OSError(ctypes.get_errno(), name)


def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)


def status(field):
    with open("/proc/self/status") as lines:
        return next(line.split(":")[1].strip() for line in lines if line.startswith(field))


def in_child(act):
    """Whether `act` succeeds in a process of its own, which it may change for good."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except OSError:
            os._exit(1)
        os._exit(0)
    end = os.waitpid(child, 0)[1]
    if end != 0:
        raise PermissionError(1, f"ended with {end}")


def must(condition):
    if not condition:
        raise PermissionError(1, "no effect")


probe("write below /usr")(lambda: write("/usr/local/open/x"))
probe("write below /etc")(lambda: write("/etc/open/x"))
probe("read another home")(lambda: open("/home/other/notes").close())
probe("read ~/.ssh")(lambda: open(f"{home}/.ssh/id_ed25519").close())
probe("change the home")(lambda: must(not os.statvfs(home).f_flag & os.ST_RDONLY))
probe("read the daemon's key")(lambda: open(f"{home}/.aegis/edge/node.key").close())
probe("change the daemon's settings")(lambda: open(f"{home}/.aegis/edge/aegis-config.yaml", "a").close())
probe("see /tmp of others")(lambda: open("/tmp/of-others").close())
probe("see devices of others")(lambda: open("/dev/of-others").close())
probe("change tunables")(lambda: must(not os.statvfs("/proc/irq").f_flag & os.ST_RDONLY))
probe("list kernel modules")(lambda: os.listdir("/usr/lib/modules"))
probe("make a cgroup")(lambda: make_cgroup())
probe("find the kernel log")(lambda: must(os.stat("/proc/kmsg").st_mode & 0o777))
probe("map memory writable and executable")(
    lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
)
probe("make a user namespace")(lambda: in_child(lambda: call("unshare", 0x10000000)))
probe("make a setuid program")(lambda: setuid_program())
probe("change the personality")(lambda: in_child(lambda: call("personality", 0x0040000)))
probe("trace a process")(lambda: in_child(lambda: call("ptrace", 0, 0, 0, 0)))
probe("be killed by a forbidden call")(lambda: must(forbidden_call() == -signal.SIGSYS))
probe("call the kernel as a 32-bit program")(lambda: must(subprocess.run([os.path.join(os.path.dirname(__file__), "int80")]).returncode == 0))
probe("open an unusual socket")(lambda: socket.socket(int(os.environ.get("FAMILY", "40")), socket.SOCK_STREAM).close())
probe("open a packet socket")(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
probe("keep capabilities within reach")(lambda: must(int(status("CapBnd"), 16)))
probe("write files for everybody")(lambda: readable_file())
probe("share the session's keyring")(lambda: must(session_keyring() == int(os.environ.get("KEYRING", "0"))))
probe("speak for the daemon")(lambda: notify("STATUS=forged"))
probe("set the clock")(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
probe("set the host's name")(lambda: call("sethostname", os.uname().nodename.encode(), len(os.uname().nodename)))
probe("run in real time")(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
probe("gain rights from a setuid program")(lambda: must(status("NoNewPrivs") == "0"))
probe("ask the user's service manager")(lambda: socket.socket(socket.AF_UNIX).connect(f"/run/user/{os.getuid()}/bus"))


def make_cgroup():
    with open("/proc/self/cgroup") as file:
        path = next(line.strip()[3:] for line in file if line.startswith("0::"))
    path = f"/sys/fs/cgroup{path}/probe"
    os.mkdir(path)
    os.rmdir(path)


def setuid_program():
    path = f"/tmp/probe-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o700))
    try:
        os.chmod(path, 0o4755)
    finally:
        os.unlink(path)


def readable_file():
    path = f"/tmp/probe-{os.getpid()}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    mode = os.stat(path).st_mode
    os.unlink(path)
    must(mode & 0o044)


def session_keyring():
    get_keyring_id, session = 0, -3
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    return libc.syscall(keyctl, get_keyring_id, session, 0)


def forbidden_call():
    code = "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0)"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode


def notify(message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), f"/run/user/{os.getuid()}/systemd/notify")


succeeded = {}
for name in sys.argv[1:] or probes:
    try:
        probes[name]()
        succeeded[name] = True
    except (OSError, ValueError) as error:
        succeeded[name] = False
        print(f"{name}: {error}", file=sys.stderr)
print(json.dumps(succeeded))
