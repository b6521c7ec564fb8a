"""Certificates of the lab's own where a configuration names files that only production has.

A private key never leaves production, so a lab rarely has one: a leaf of a lab-wide authority stands at the
very path.  It knows HAProxy's words for certificates and nothing else of it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from testbed.devices.base import Box
from testbed.errors import CommandFailed, Unsupported

AUTHORITY = "lab-authority"
DAYS = "30"
LEAVES = frozenset({"crt"})
AUTHORITIES = frozenset({"ca-file", "ca-verify-file"})
LISTS = frozenset({"crt-list"})
LINES = frozenset({"bind", "server", "default-server", "server-template", "load", "httpclient.ssl.ca-file"})
IN_FOLDER = "stand-in.pem"
BUILT_IN = ("@",)
SIGNS = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
"""What RFC 5280 (section 4.2.1.3) asks of an authority, and Python 3.13's clients insist on."""

EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", DAYS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that a configuration names: `what` is leaf, authority or list; `names` a leaf is to be good for."""

    path: str
    what: str
    names: tuple[str, ...] = ()


def wanted_certificates(text: str, files: Mapping[str, bytes]) -> list[Wanted]:
    """Every certificate file that a haproxy.cfg, or a crt-list among `files`, names by an absolute path."""
    bases = {"crt-base": "", "ca-base": ""}
    found: dict[str, Wanted] = {}
    names = tuple(sorted(_host_names(text)))
    for words in _lines(text):
        if words[0] in bases and len(words) > 1:
            bases[words[0]] = words[1]
        if words[0] not in LINES:
            continue
        for option, value in pairwise(words):
            if value.startswith(BUILT_IN):
                continue
            if option in LEAVES:
                path = _based(bases["crt-base"], value)
                found.setdefault(path, Wanted(path, "leaf", names))
            elif option in AUTHORITIES:
                path = _based(bases["ca-base"], value)
                found.setdefault(path, Wanted(path, "authority"))
            elif option in LISTS:
                found.setdefault(value, Wanted(value, "list", names))
                listed = files.get(value, b"").decode(errors="replace")
                for own, filters in _listed(listed):
                    path = _based(bases["crt-base"], own)
                    found.setdefault(path, Wanted(path, "leaf", (*names, *filters)))
    return [want for want in found.values() if want.path.startswith("/") and ".." not in PurePosixPath(want.path).parts]


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = line.split()
        if words:
            yield words


def _based(base: str, path: str) -> str:
    return path if path.startswith("/") or not base else str(PurePosixPath(base) / path)


def _host_names(text: str) -> set[str]:
    """Host names that a configuration compares with: what clients will ask for."""
    names = set()
    for words in _lines(text):
        told = " ".join(words)
        if words[0] in ("acl", "use_backend", "use-server") and ("host" in told or "sni" in told):
            names |= {word for word in words[1:] if _is_name(word)}
    return names


def _is_name(word: str) -> bool:
    bare = word.removeprefix("*.")
    return "." in bare and bare.isascii() and all(part and part.replace("-", "").isalnum() for part in bare.split("."))


def _listed(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        plain = line.split("#")[0].replace("[", " [ ").replace("]", " ] ").split()
        if plain:
            after = plain[plain.index("]") + 1 :] if "]" in plain else plain[1:]
            yield plain[0], [word for word in after if _is_name(word)]


def stand_ins(box: Box, wanted: Sequence[Wanted], there: Collection[str], known: Collection[str]) -> dict[str, bytes]:
    """Contents for those wanted files that neither the lab (`there`) nor the node has, by path.

    `known` are stand-ins made before, which the node has by now.
    """
    made: dict[str, bytes] = {}
    for want in wanted:
        folder = want.path.rstrip("/")
        if want.path in there or any(path.startswith(f"{folder}/") for path in there):
            continue
        if want.path not in known and f"{folder}/{IN_FOLDER}" not in known and _exists(box, want.path):
            continue
        if want.what == "authority":
            made[want.path] = _authority(box)[0]
        elif want.what == "list":
            leaf = str(PurePosixPath(want.path).with_suffix(".stand-in.pem"))
            made[leaf] = _leaf(box, want)
            made[want.path] = f"{leaf}\n".encode()
        elif want.path.endswith("/") or not PurePosixPath(want.path).suffix:
            made[f"{folder}/{IN_FOLDER}"] = _leaf(box, want)
        else:
            made[want.path] = _leaf(box, want)
    return made


def _exists(box: Box, path: str) -> bool:
    """Whether there is such a file, or a folder with files in it."""
    try:
        return bool(box.run(["find", path, "-maxdepth", "1", "!", "-type", "d"]))
    except CommandFailed:
        return False


def authority_of(box: Box) -> str:
    """The lab's authority as PEM, "" where no node has needed one yet."""
    certificate = box.home.parents[1] / AUTHORITY / "ca.pem"
    return certificate.read_text(encoding="ascii") if certificate.exists() else ""


def identity_of(box: Box, names: Sequence[str]) -> str:
    """A certificate of the lab's authority for a node and these names, with chain and key as one PEM.

    Raises Unsupported without openssl.
    """
    wanted = Wanted(f"/{box.node.name}.pem", "leaf", tuple(name for name in names if _is_name(name)))
    return _leaf(box, wanted).decode("ascii")


def _authority(box: Box) -> tuple[bytes, bytes]:
    """The lab's certificate and key, the same for all of its nodes."""
    folder = box.home.parents[1] / AUTHORITY
    certificate, key = folder / "ca.pem", folder / "ca.key"
    if not key.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        subject = ("-subj", "/CN=lab authority (no trust outside this shadow)")
        made = _openssl(box, "req", "-x509", *EC_KEY, *subject, *SIGNS, *_keep())
        certificate.write_bytes(made[0])
        key.write_bytes(made[1])
    return certificate.read_bytes(), key.read_bytes()


def _leaf(box: Box, want: Wanted) -> bytes:
    """Certificate, authority and key in one file, made once a node."""
    stem = PurePosixPath(want.path).stem.replace("_", "*")
    addresses = [str(address.ip) for interface in box.node.interfaces for address in interface.addresses]
    names = dict.fromkeys(name for name in (stem, *want.names, f"{box.node.name}.lab") if _is_name(name))
    san = ",".join([*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)])
    folder = box.home / "stand-ins"
    folder.mkdir(mode=0o700, exist_ok=True)
    kept = folder / hashlib.sha256(f"{want.path} {san}".encode()).hexdigest()
    if not kept.exists():
        authority, key = _authority(box)
        given = box.home / "run" / ".authority"
        given.write_bytes(authority + key)
        try:
            signed = ("-CA", "/run/.authority", "-CAkey", "/run/.authority")
            extensions = ("-addext", f"subjectAltName={san}", "-addext", "basicConstraints=critical,CA:FALSE")
            subject = ("-subj", f"/CN={next(iter(names))[:64]}")
            made = _openssl(box, "req", "-x509", *EC_KEY, *subject, *extensions, *signed, *_keep())
        finally:
            given.unlink()
        kept.write_bytes(made[0] + authority + made[1])
    return kept.read_bytes()


def _keep() -> tuple[str, ...]:
    return ("-out", "/run/.made.pem", "-keyout", "/run/.made.key")


def _openssl(box: Box, *argv: str) -> tuple[bytes, bytes]:
    """Run openssl inside the node; the certificate and the key that it made."""
    certificate, key = (box.home / "run" / name for name in (".made.pem", ".made.key"))
    try:
        box.run(["openssl", *argv])
    except CommandFailed as failure:
        raise Unsupported(f"no certificate could be made ({failure.stderr})", "install openssl 3.0 or later") from None
    made = certificate.read_bytes(), key.read_bytes()
    certificate.unlink()
    key.unlink()
    return made
