"""What runs inside the guest as PID 1: furnish the machine, run one program, power off.

Started by the guest kernel with nothing but a Python and its standard library: it imports nothing of ours and knows
nothing but its job file, which lies beside it.

Root is an overlay: below it the real machine's files, which the real machine's kernel lets nobody write, above them
memory.  Only the directories named in the job are the real ones.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import traceback
import tty
from pathlib import Path
from typing import Any

CONTROL, STDIN, STDOUT, STDERR = 1, 2, 3, 4
MS_NOSUID, MS_NODEV, MS_BIND, MS_MOVE, MNT_DETACH = 0x2, 0x4, 0x1000, 0x2000, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
POWER_OFF = 0x4321FEDC
OPEN_FILES = 1_048_576
NOT_FOUND, NOT_RUNNABLE = 127, 126

MODULES = """
overlay ipv6 veth dummy ifb tun bridge 8021q vrf vxlan macvlan openvswitch
sch_netem sch_tbf sch_htb sch_prio sch_ingress sch_fq sch_fq_codel
act_mirred act_gact cls_u32 cls_matchall cls_flower cls_bpf
nf_conntrack nf_nat nf_tables nft_compat nft_ct nft_nat nft_chain_nat nft_log nft_limit nft_reject_inet
ip_tables iptable_filter iptable_nat iptable_mangle iptable_raw ip6_tables ip6table_filter ip6table_nat
xt_conntrack xt_tcpudp xt_multiport xt_comment xt_nat xt_MASQUERADE xt_REDIRECT xt_LOG xt_TRACE xt_set ip_set
nf_conntrack_netlink nfnetlink_log nf_log_syslog tcp_bbr
"""
"""What a run may ask for from inside a user namespace, where not everything loads by itself."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2); raises OSError that says what was attempted."""
    if _libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data and os.fsencode(data)):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or source} on {target}: {os.strerror(number)}")


def furnish(job: dict[str, Any]) -> list[str]:
    """Make the root the program sees, load modules, raise loopback; names the modules this kernel does not have."""
    mount("proc", "/proc", "proc")
    mount("tmpfs", "/tmp", "tmpfs", 0, "mode=755")
    upper, work, root = (Path("/tmp", name) for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir()
    insert(Path(job["modules"]), "overlay")
    # a file of the machine's root is here whoever's the caller sees: set-user-id programs would become nobody
    mount("overlay", str(root), "overlay", MS_NOSUID, f"lowerdir=/,upperdir={upper},workdir={work}")
    enter(root)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV)
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV)
    mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID)
    for name, kind, mode in (("pts", "devpts", "ptmxmode=666"), ("shm", "tmpfs", "mode=1777")):
        Path("/dev", name).mkdir(exist_ok=True)
        mount(kind, f"/dev/{name}", kind, MS_NOSUID | MS_NODEV, mode)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        if not Path("/dev", name).is_symlink():
            Path("/dev", name).symlink_to(target)
    for place, mode in (("/tmp", "mode=1777"), ("/run", "mode=755")):
        mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, mode)
    for folder in job["writable"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        mount("hostfs", folder, "hostfs", MS_NOSUID | MS_NODEV, folder)
    loopback_up()
    absent = load(Path(job["modules"]))
    settings()
    legacy_tables()
    return absent


def enter(root: Path) -> None:
    """Make `root` the root; by pivot, as nobody may make user namespaces from inside a chroot."""
    os.chdir(root)
    if _libc.syscall(155, b".", b"."):
        raise OSError(ctypes.get_errno(), "pivot_root")
    _libc.umount2(b".", MNT_DETACH)
    os.chdir("/")


def insert(modules: Path, name: str) -> None:
    """Load one module by its file, while there is no /lib/modules yet."""
    found = next(modules.glob(f"kernel/**/{name}.ko*"))
    subprocess.run(("/sbin/insmod", str(found)), check=True)


def load(modules: Path) -> list[str]:
    """Put the modules where the kernel itself looks for them and load what a run may need; names what is absent."""
    home = Path("/lib/modules", os.uname().release)
    home.mkdir(parents=True, exist_ok=True)
    mount(str(modules), str(home), None, MS_BIND)
    subprocess.run(("/sbin/modprobe", "-a", "-q", *MODULES.split()), check=False)
    loaded = {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}
    return [name for name in MODULES.split() if name not in loaded and not Path("/sys/module", name).exists()]


def loopback_up() -> None:
    """Raise lo."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        fcntl.ioctl(asked, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def legacy_tables() -> None:
    """Where this kernel's nftables know no IP (Debian builds it so), let `iptables` be the legacy one in here."""
    sbin = Path("/usr/sbin")
    nft, legacy = (sbin / f"iptables-{kind}" for kind in ("nft", "legacy"))
    if not (nft.exists() and legacy.exists()):
        return
    probe = subprocess.run((nft, "-w", "-N", "testbed-probe"), capture_output=True, check=False)
    if probe.returncode == 0:
        subprocess.run((nft, "-w", "-X", "testbed-probe"), check=True)
        return
    for family in ("iptables", "ip6tables"):
        for verb in ("", "-save", "-restore"):
            chosen, alternative = sbin / f"{family}-legacy{verb}", Path("/etc/alternatives", f"{family}{verb}")
            if chosen.exists() and alternative.is_symlink():
                alternative.unlink()
                alternative.symlink_to(chosen)


def settings() -> None:
    """Limits of the machine that UML derives from its little memory and that a shadow of a network soon meets."""
    for name, value in (
        ("fs/inotify/max_user_instances", 8192),
        ("net/ipv4/neigh/default/gc_thresh3", 65536),
        ("net/ipv4/neigh/default/gc_thresh2", 32768),
        ("user/max_user_namespaces", 65536),
        ("user/max_net_namespaces", 65536),
        ("user/max_mnt_namespaces", 65536),
        ("user/max_pid_namespaces", 65536),
    ):
        Path("/proc/sys", name).write_text(str(value))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))


def line(number: int) -> int:
    """Open a serial line as a plain road for octets: no echo, no translation, no control characters.

    To be done before the caller is told to talk: going raw forgets what has come in.
    """
    descriptor = os.open(f"/dev/ttyS{number}", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return descriptor


def write_all(descriptor: int, data: bytes) -> None:
    """Write every octet."""
    while data:
        data = data[os.write(descriptor, data) :]


def carry_out(source: int, target: int, deaf: threading.Event) -> None:
    """Copy what the program says to its serial line, to the end, or until the caller no longer listens."""
    while (data := os.read(source, 65536)) and not deaf.is_set():
        write_all(target, data)
    os.close(source)
    termios.tcdrain(target)


def carry_in(source: int, target: int) -> None:
    """Copy what the caller says to the program: each block with its length before it, length 0 the end."""
    try:
        while size := int.from_bytes(exactly(source, 4)):
            write_all(target, exactly(source, size))
    except BrokenPipeError:
        pass
    finally:
        os.close(target)


def exactly(source: int, size: int) -> bytes:
    """Read `size` octets; what ends early is the caller's end, told as a broken pipe."""
    data = b""
    while len(data) < size:
        more = os.read(source, size - len(data))
        if not more:
            raise BrokenPipeError
        data += more
    return data


def obey(control: int, group: int, deaf: dict[int, threading.Event]) -> None:
    """Do what the caller asks, one thing a line: `signal NUMBER`, or `deaf LINE` when it no longer listens there."""
    with os.fdopen(os.dup(control), "rb", buffering=0) as asked:
        while words := asked.readline().split():
            if words[0] == b"deaf":
                deaf[int(words[1])].set()
                continue
            try:
                os.killpg(group, int(words[1]))
            except ProcessLookupError:
                return


def run(job: dict[str, Any], lines: dict[int, int]) -> int:
    """Run the program to its end and everything else with it; its exit code, 128 and the number for a signal."""
    try:
        program = subprocess.Popen(
            job["argv"],
            cwd=job["cwd"],
            env=job["environment"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as refusal:
        write_all(lines[STDERR], os.fsencode(f"{job['argv'][0]}: {refusal.strerror}\n"))
        termios.tcdrain(lines[STDERR])
        return NOT_FOUND if isinstance(refusal, FileNotFoundError) else NOT_RUNNABLE
    assert program.stdin
    assert program.stdout
    assert program.stderr
    deaf = {STDOUT: threading.Event(), STDERR: threading.Event()}
    carriers = [
        threading.Thread(target=carry_out, args=(os.dup(pipe.fileno()), lines[number], deaf[number]), daemon=True)
        for pipe, number in ((program.stdout, STDOUT), (program.stderr, STDERR))
    ]
    for thread in (
        *carriers,
        threading.Thread(target=carry_in, args=(lines[STDIN], os.dup(program.stdin.fileno())), daemon=True),
        threading.Thread(target=obey, args=(lines[CONTROL], program.pid, deaf), daemon=True),
    ):
        thread.start()
    for pipe in (program.stdin, program.stdout, program.stderr):
        pipe.close()
    while True:
        ended, status = os.wait()
        if ended == program.pid:
            break
    # the machine ends with its program: nothing that it left may hold a pipe open
    os.kill(-1, signal.SIGKILL)
    for thread in carriers:
        thread.join()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def main() -> None:
    """The life of the guest."""
    job = json.loads(Path(sys.argv[0]).with_name("job.json").read_text())
    lines = {number: line(number) for number in (CONTROL, STDIN, STDOUT, STDERR)}
    control = lines[CONTROL]
    try:
        absent = furnish(job)
        write_all(control, f"ready {' '.join(absent)}\n".encode())
        answer = f"exit {run(job, lines)}"
    except BaseException as error:  # noqa: BLE001  the caller must hear of it, whatever it is
        answer = f"failed {error!r}"
        traceback.print_exc()
    write_all(control, answer.encode() + b"\n")
    termios.tcdrain(control)
    os.sync()
    _libc.reboot(POWER_OFF)


if __name__ == "__main__":
    main()
