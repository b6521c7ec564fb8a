"""Run as a program, never imported: builds a Mininet Topo and prints what it holds as one JSON object.

    read_mininet.py FILE NAME ARGS     FILE is the user's Python file, or empty for Mininet's own topologies;
                                       NAME a class or a key of `topos`, or empty for the file's only one;
                                       ARGS a JSON object with `args` and `kwargs`

It prints {"ok": ...} or {"problem": {"line", "found", "expected"}} on the descriptor it was given as standard output;
what the user's file prints goes to standard error.  It runs no network, and no method of a node.
"""

import importlib.util
import inspect
import json
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

BUILT_IN = {
    "minimal": "MinimalTopo",
    "single": "SingleSwitchTopo",
    "reversed": "SingleSwitchReversedTopo",
    "linear": "LinearTopo",
    "tree": "TreeTopo",
    "torus": "TorusTopo",
}


class Problem(Exception):
    """What ends the program with a place and a sentence."""

    def __init__(self, line: int, found: str, expected: str) -> None:
        super().__init__(found)
        self.told = {"line": line, "found": found, "expected": expected}


def main(path: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The topology as plain data."""
    try:
        from mininet.topo import Topo  # noqa: PLC0415  its absence is told as JSON
    except Exception as error:
        raise Problem(1, f"no Mininet to read it with ({error})", "an installed Mininet") from error
    make = chosen(loaded(path), name, Topo) if path else built_in(name)
    try:
        topo = make(*arguments["args"], **arguments["kwargs"])
    except Exception as error:
        raise of_error(path, error, f"{name or 'the topology'} to be built") from error
    if not isinstance(topo, Topo):
        raise Problem(1, f"{name}: an object of class {type(topo).__name__}", "a Mininet Topo")
    return described(topo, path)


def loaded(path: str) -> ModuleType:
    """The user's file as a module that is not `__main__`, its own folder first in the search."""
    sys.path.insert(0, str(Path(path).parent))
    spec = importlib.util.spec_from_file_location("users_topology", path)
    if spec is None or spec.loader is None:
        raise Problem(1, "a file that Python does not take for its own", "a name that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["users_topology"] = module
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise of_error(path, error, "a file that defines a Topo and does not end the program") from error
    except Exception as error:
        raise of_error(path, error, "a Python file that can be run") from error
    return module


def chosen(module: ModuleType, name: str, topo_class: type[Any]) -> Any:
    """What makes the topology: the named one, or the file's only one."""
    topos = getattr(module, "topos", None)
    topos = dict(topos) if isinstance(topos, dict) else {}
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, topo_class) and value.__module__ == module.__name__
    }
    choices = {**classes, **topos}
    if name:
        if name not in choices:
            raise Problem(1, f"no topology {name!r}", f"one of: {', '.join(sorted(map(str, choices))) or 'none'}")
        return choices[name]
    if len(topos) == 1:
        return next(iter(topos.values()))
    if not topos:
        parents = {base for value in classes.values() for base in value.__mro__[1:]}
        last = [value for value in classes.values() if value not in parents]
        if len(last) == 1:
            return last[0]
    if not choices:
        raise Problem(1, "no Topo", "a subclass of mininet.topo.Topo, or topos = {'name': ...}")
    raise Problem(1, f"{len(choices)} topologies", f"FILE.py:NAME with one of: {', '.join(sorted(map(str, choices)))}")


def built_in(name: str) -> Any:
    """One of Mininet's own."""
    from mininet import topo, topolib  # noqa: PLC0415  see main

    if name not in BUILT_IN:
        raise Problem(1, f"no topology {name!r} in Mininet", f"one of: {', '.join(sorted(BUILT_IN))}")
    return getattr(topo, BUILT_IN[name], None) or getattr(topolib, BUILT_IN[name])


def described(topo: Any, path: str) -> dict[str, Any]:
    """Nodes and links in Mininet's own order, options as JSON or as text."""
    nodes = []
    for name in [*topo.hosts(), *topo.switches()]:
        options = dict(topo.nodeInfo(name))
        cls = options.pop("cls", None)
        nodes.append(
            {
                "name": str(name),
                "switch": bool(options.pop("isSwitch", False)),
                "class": getattr(cls, "__name__", None) if cls is not None else None,
                "forwards": forwards(cls),
                "line": line_of(cls, path),
                "options": plain(options),
            }
        )
    links = []
    for _, _, info in topo.links(sort=False, withInfo=True):
        options = dict(info)
        ends = [{"node": str(options.pop(f"node{i}")), "port": options.pop(f"port{i}")} for i in (1, 2)]
        options.pop("cls", None)
        links.append({"ends": ends, "options": plain(options)})
    return {"class": type(topo).__name__, "line": line_of(type(topo), path), "nodes": nodes, "links": links}


def forwards(cls: Any) -> bool:
    """Whether the class or one of its parents outside Mininet turns forwarding on."""
    for each in getattr(cls, "__mro__", ()):
        if not each.__module__.startswith("mininet.") and each is not object:
            try:
                source = inspect.getsource(each)
            except (OSError, TypeError):
                continue
            if "ip_forward" in source or "all.forwarding" in source:
                return True
    return cls is not None and getattr(cls, "__name__", "") in ("LinuxRouter", "NAT")


def line_of(cls: Any, path: str) -> int:
    """Where a class of the user's file begins."""
    try:
        if path and inspect.isclass(cls) and Path(inspect.getsourcefile(cls) or "").samefile(path):
            return inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        pass
    return 1


def plain(value: Any) -> Any:
    """A value as JSON has it; anything else as its text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__name__", None) or str(value)


def of_error(path: str, error: BaseException, expected: str) -> Problem:
    """The last line of the user's own file in a traceback."""
    line = 1
    if isinstance(error, SyntaxError) and error.filename == path and error.lineno:
        line = error.lineno
    for frame in traceback.extract_tb(error.__traceback__):
        if path and frame.filename == path and frame.lineno:
            line = frame.lineno
    words = " ".join(str(error).split())[:200]
    return Problem(line, f"{type(error).__name__}: {words}" if words else type(error).__name__, expected)


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        told = {"ok": main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))}
    except Problem as problem:
        told = {"problem": problem.told}
    json.dump(told, answer)
    answer.flush()
    os._exit(0)
