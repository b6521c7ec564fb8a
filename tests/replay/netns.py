"""Small real networks for tests: private namespaces in a forked child, removed with it."""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_MS_REC_PRIVATE = 0x4000 | 0x4_0000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def run(*argv: str, given: str | None = None) -> str:
    """Run a program in the current namespace; its output, or an error with what it said."""
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


class Net:
    """Namespaces by name, made in this process's own user namespace."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self._programs: list[subprocess.Popen[bytes]] = []

    def node(self, name: str) -> None:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        self.fds[name] = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        run("ip", "link", "set", "lo", "up")
        Path("/proc/sys/net/ipv6/conf/all/accept_dad").write_text("0")
        Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")

    def enter(self, name: str) -> None:
        _check(_libc.setns(self.fds[name], _CLONE_NEWNET), "setns")

    def on(self, name: str, *argv: str, given: str | None = None) -> str:
        self.enter(name)
        return run(*argv, given=given)

    def ip(self, name: str, lines: str) -> None:
        """`ip -batch` on a node."""
        self.on(name, "ip", "-batch", "-", given=lines)

    def link(self, a: str, a_interface: str, b: str, b_interface: str) -> None:
        self.enter(a)
        peer = f"/proc/{os.getpid()}/fd/{self.fds[b]}"
        run("ip", "link", "add", a_interface, "type", "veth", "peer", "name", b_interface, "netns", peer)
        self.ip(a, f"link set {a_interface} up\n")
        self.ip(b, f"link set {b_interface} up\n")

    def sysctl(self, name: str, key: str, value: str) -> None:
        self.enter(name)
        Path("/proc/sys", key.replace(".", "/")).write_text(value)

    def program(self, name: str, *argv: str) -> None:
        """Start a daemon in the foreground on a node."""
        self.enter(name)
        self._programs.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=sys.stderr))

    def close(self) -> None:
        for program in self._programs:
            program.kill()
            program.wait()


def routed(net: Net, rules: str = "", services: int = 1) -> None:
    """client -- router -- server: AnyIP client, dual stack, stateful router with these rules."""
    for name in ("client", "router", *(f"server{i}" if i else "server" for i in range(services))):
        net.node(name)
    net.link("client", "eth0", "router", "in0")
    net.ip(
        "client",
        "addr add 203.0.113.1/24 dev eth0\naddr add 2001:db8:f::1/64 dev eth0\n"
        "route add default via 203.0.113.2\nroute add default via 2001:db8:f::2\n"
        "route add local 198.51.100.0/24 dev lo\nroute add local 2001:db8:100::/48 dev lo\n",
    )
    net.ip(
        "router",
        "addr add 203.0.113.2/24 dev in0\naddr add 2001:db8:f::2/64 dev in0\n"
        "route add 198.51.100.0/24 via 203.0.113.1\nroute add 2001:db8:100::/48 via 2001:db8:f::1\n",
    )
    for i in range(services):
        server = f"server{i}" if i else "server"
        net.link("router", f"out{i}", server, "eth0")
        net.ip("router", f"addr add 10.0.{i}.1/24 dev out{i}\naddr add 2001:db8:{i}::1/64 dev out{i}\n")
        net.ip(
            server,
            f"addr add 10.0.{i}.2/24 dev eth0\naddr add 2001:db8:{i}::2/64 dev eth0\n"
            f"route add default via 10.0.{i}.1\nroute add default via 2001:db8:{i}::1\n",
        )
    net.sysctl("router", "net.ipv4.ip_forward", "1")
    net.sysctl("router", "net.ipv6.conf.all.forwarding", "1")
    if rules:
        net.on("router", "iptables-restore", given=rules)


def apart(body: Callable[[Net], Any], timeout_s: float = 30.0) -> Any:
    """Run `body` with a fresh Net in a forked child; its result, or its traceback as a failure."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer")
        pid = os.fork()
        if pid == 0:
            _live(body, answer)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.005)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"not done within {timeout_s} s")
        if not answer.exists():
            raise AssertionError(f"the child ended without an answer (status {status})")
        good, value = pickle.loads(answer.read_bytes())
        if not good:
            raise AssertionError(value)
        return value


def _live(body: Callable[[Net], Any], answer: Path) -> None:
    net = Net()
    result: tuple[bool, Any] = (False, "no result")
    try:
        uid, gid = os.getuid(), os.getgid()
        _check(_libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET), "unshare")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _check(_libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None), "mount /")
        _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, None), "mount /run")
        result = (True, body(net))
    finally:
        error = sys.exc_info()[1]
        if error is not None:
            result = (False, "".join(traceback.format_exception(error)))
        net.close()
        answer.write_bytes(pickle.dumps(result))
        os._exit(0)
