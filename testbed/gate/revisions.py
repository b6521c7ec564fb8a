"""Two revisions of a config repository as a lab and a change: the lab as it is at the base, the change up to the head.

Both are written into a folder of the gate's own. May not know how a change is tried, nor git's commands.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from testbed.errors import InvalidInput
from testbed.expectations.file import NAME as EXPECT
from testbed.gate.diffs import file_diff
from testbed.gate.links import link_edits
from testbed.gate.places import Layout
from testbed.gate.repository import INDEX, NOTHING, Blob, Repository
from topologies.load import KNOWN_KINDS, LAB_FILE
from topologies.located import InvalidLab, read_yaml
from topologies.schema import LabFile

LAB_PARTS = ("configs", "traffic", "changes")
_OF_THE_BASE = ("policy.yaml", "traffic/")


@dataclass(frozen=True, slots=True)
class Compared:
    """A lab and a change made from two revisions.

    `name` is the lab's own, `changed` are the paths that differ below it; `notes` tell what of them is not tried.
    `captures` are those of a lab outside of the repository, which are used where they lie. `intents`: the head declares
    anew what is to change, in the expect.yaml that lies in the change.
    """

    name: str
    lab: Path
    change: Path
    layout: Layout
    base: str
    head: str
    changed: tuple[str, ...]
    notes: tuple[str, ...] = ()
    captures: tuple[Path, ...] = ()
    is_empty: bool = False
    intents: bool = True

    def located(self, error: InvalidInput) -> InvalidInput:
        """The same error with the paths of the repository in the place of our copies'."""
        return InvalidInput(
            self._path(error.path),
            error.line,
            error.column,
            error.found,
            error.expected,
            [self.located(other) for other in error.also],
        )

    def _path(self, path: Path) -> Path:
        for copy, revision in ((self.change, self.head), (self.lab, self.base)):
            if path.is_absolute() and path.is_relative_to(copy):
                place = self.layout.path(path.relative_to(copy).as_posix())
                return path if place is None else Path(f"{_short(revision)}:{place}")
        return path


def lab_folders(files: Mapping[str, Blob]) -> tuple[str, ...]:
    """The folders of a revision that are labs ("" is the top)."""
    return tuple(sorted(str(PurePosixPath(p).parent) for p in files if PurePosixPath(p).name == LAB_FILE))


def changed_paths(before: Mapping[str, Blob], after: Mapping[str, Blob]) -> tuple[str, ...]:
    """Paths whose content differs, or that only one of the two has."""
    return tuple(path for path in sorted({*before, *after}) if before.get(path) != after.get(path))


def chosen_lab(repository: Repository, lab: str | None, files: Mapping[str, Blob], changed: tuple[str, ...]) -> str:
    """The lab to look at, by its folder in the repository (POSIX, "." at the top) or by a path elsewhere.

    Without a wish it is the one lab below which something changed, or the only one there is. InvalidInput.
    """
    labs = lab_folders(files)
    if lab is not None:
        folder = lab_named(repository, lab, labs)
        if folder is not None:
            return folder
        if (Path(lab) / LAB_FILE).is_file():
            return str(Path(lab).resolve())
        have = f": it has {', '.join(labs)}" if labs else ", which has none"
        raise InvalidInput(Path(lab), 1, 1, "no lab", f"a lab folder at this revision of the repository{have}")
    touched = [each for each in labs if any(below(path, each) is not None for path in changed)]
    if len(labs) == 1 or len(touched) == 1:
        return (touched or list(labs))[0]
    found = f"{len(touched) or 'no'} lab of {len(labs)} with changes" if labs else f"no {LAB_FILE}"
    have = f": {', '.join(touched or labs)}" if labs else ""
    raise InvalidInput(repository.root, 1, 1, found, f"--lab LAB to say which{have}")


def lab_named(repository: Repository, name: str, labs: tuple[str, ...]) -> str | None:
    """The lab of the repository that a path names, from the working directory or from the top; None for another."""
    top = repository.root.resolve()
    for start in (Path.cwd(), top):
        path = (start / name).resolve()
        if path.is_relative_to(top) and path.relative_to(top).as_posix() in labs:
            return path.relative_to(top).as_posix()
    return None


def compared(
    repository: Repository,
    base: str,
    head: str,
    lab: str | None,
    work: Path,
    *,
    configs: str | None = None,
    kinds: frozenset[str] = KNOWN_KINDS,
) -> Compared:
    """Write lab and change into the empty folder `work`; InvalidInput for what cannot be compared or tried.

    `configs` is the folder of the repository that holds a folder a node, for a lab that lies elsewhere; `kinds` are the
    kinds of nodes that there are.
    """
    base, head = repository.commit(base), repository.commit(head)
    before, after = repository.files(base), repository.files(head)
    changed = changed_paths(before, after)
    chosen = chosen_lab(repository, lab, before, changed)
    change = work / "lab" / "changes" / f"{_short(base)}..{_short(head)}"
    writer = Writer(repository, work / "lab", change, kinds)
    if Path(chosen).is_absolute():
        return _elsewhere(writer, Path(chosen), configs, (base, before), (head, after))
    return _inside(writer, "" if chosen == "." else chosen, (base, before), (head, after))


_Side = tuple[str, Mapping[str, Blob]]


def _inside(writer: Writer, folder: str, base: _Side, head: _Side) -> Compared:
    """A lab that is part of the repository."""
    layout = Layout.of_lab(folder)
    before, after = relative(base[1], folder), relative(head[1], folder)
    changed = changed_paths(before, after)
    own = {path: blob for path, blob in before.items() if not path.startswith("changes/")}
    writer.lab_files(own, layout)
    notes = [f"{layout.path(path)} differs; the base's is used" for path in changed if path.startswith(_OF_THE_BASE)]
    configs = [path for path in changed if path.startswith("configs/")]
    writer.changed_files(configs, before, after, layout)
    moved: Mapping[str, tuple[str, int]] = {}
    if LAB_FILE in changed:
        if LAB_FILE not in after:
            raise InvalidInput(Path(f"{_short(head[0])}:{layout.path(LAB_FILE)}"), 1, 1, "no such file", "the lab")
        moved = writer.links(after[LAB_FILE], layout, _short(head[0]))
    expected = writer.expectations(before, after, str(layout.path(EXPECT)))
    notes += expected.notes
    if EXPECT in changed and not configs and not moved:
        notes.append(f"{layout.path(EXPECT)} declares what nothing here changes: nothing of it was tested")
    layout = Layout(layout.lab, layout.configs, {**moved, **expected.moved})
    return Compared(
        writer.lab_file().name,
        writer.lab,
        writer.change,
        layout,
        base[0],
        head[0],
        tuple(str(layout.path(path)) for path in changed),
        tuple(notes),
        is_empty=not configs and not moved,
        intents=expected.intents,
    )


def _elsewhere(writer: Writer, lab: Path, configs: str | None, base: _Side, head: _Side) -> Compared:
    """A lab that lies elsewhere, on the repository's configs in the place of its own."""
    folder = "" if configs in (None, ".") else str(PurePosixPath(configs or ""))
    if configs is None and any(path.startswith("configs/") for path in base[1]):
        folder = "configs"
    layout = Layout(None, folder)
    nodes = writer.lab_elsewhere(lab)

    def ours(files: Mapping[str, Blob]) -> dict[str, Blob]:
        below = relative(files, folder)
        return {f"configs/{path}": blob for path, blob in below.items() if path.split("/")[0] in nodes and "/" in path}

    before, after = ours(base[1]), ours(head[1])
    changed = changed_paths(before, after)
    writer.lab_files(before, layout)
    writer.changed_files(list(changed), before, after, layout)
    expected = writer.expectations(
        relative(base[1], folder), relative(head[1], folder), f"{folder}/{EXPECT}".lstrip("/")
    )
    layout = Layout(None, folder, expected.moved)
    captures = tuple(sorted(p for p in (lab / "traffic").glob("*.pcap*") if p.is_file()))
    told = tuple(str(layout.path(path)) for path in changed)
    return Compared(
        writer.lab_file().name,
        writer.lab,
        writer.change,
        layout,
        base[0],
        head[0],
        told,
        expected.notes,
        captures,
        is_empty=not changed,
        intents=expected.intents,
    )


@dataclass(frozen=True, slots=True)
class Declared:
    """What the head expects of its change: where the lines of its file stem from, whether its intents hold, notes."""

    moved: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    intents: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Writer:
    """Puts files of a repository where a lab and a change are read from."""

    repository: Repository
    lab: Path
    change: Path
    kinds: frozenset[str]

    def lab_files(self, files: Mapping[str, Blob], layout: Layout) -> None:
        """The lab's own files; a symbolic link stays one, and the lab's reader refuses it when it leads out."""
        contents = self.repository.contents(files.values())
        for path, blob in files.items():
            content = self.repository.full(layout.path(path) or path, blob, contents[blob.hash])
            _put(self.lab / path, content, link=blob.link)

    def lab_elsewhere(self, lab: Path) -> frozenset[str]:
        """Copy a lab without its configs, captures and changes; the names that its nodes may have in a repository."""
        self.lab.mkdir(parents=True)
        for entry in lab.iterdir():
            if entry.name not in LAB_PARTS and not entry.name.startswith(".") and entry.is_file():
                shutil.copyfile(entry, self.lab / entry.name)
        return frozenset(self.lab_file().topology.nodes)

    def lab_file(self) -> LabFile:
        """The lab's lab.yaml by itself; InvalidInput."""
        try:
            return read_yaml(self.lab / LAB_FILE, LabFile)
        except InvalidLab as error:
            raise InvalidInput.of(error) from None

    def changed_files(
        self, changed: list[str], before: Mapping[str, Blob], after: Mapping[str, Blob], layout: Layout
    ) -> None:
        """The change's files: what is new or other as it has become, what is gone as a patch."""
        self.change.mkdir(parents=True)
        wanted = [after[path] if path in after else before[path] for path in changed]
        contents = self.repository.contents(wanted)
        patch = b""
        for path, blob in zip(changed, wanted, strict=True):
            content = self.repository.full(layout.path(path) or path, blob, contents[blob.hash])
            if path in after:
                _put(self.change / path, content, link=blob.link)
            else:
                patch += file_diff(path, content, None)
        if patch:
            (self.change / "change.patch").write_bytes(patch)

    def expectations(self, before: Mapping[str, Blob], after: Mapping[str, Blob], path: str) -> Declared:
        """The head's expect.yaml, put into the change; what it declares holds only where this change has written it."""
        if EXPECT not in after:
            return Declared()
        content = self.repository.full(
            path, after[EXPECT], self.repository.contents([after[EXPECT]])[after[EXPECT].hash]
        )
        _put(self.change / EXPECT, content)
        copy = (self.change / EXPECT).relative_to(self.lab).as_posix()
        moved = {f"{copy}:{line}": (path, line) for line in range(1, content.count(b"\n") + 2)}
        intents = before.get(EXPECT) != after[EXPECT]
        return Declared(
            moved, intents, () if intents else (f"{path} is older than this change: only its waivers hold",)
        )

    def links(self, lab_file: Blob, layout: Layout, head: str) -> Mapping[str, tuple[str, int]]:
        """The links that lab.yaml has otherwise at the head, as change.yaml; where each of its lines stems from."""
        scratch = self.lab.parent / "head"
        _put(scratch / LAB_FILE, self.repository.contents([lab_file])[lab_file.hash])
        shown = Path(f"{head}:{layout.path(LAB_FILE)}")
        try:
            edits = link_edits(self.lab / LAB_FILE, scratch / LAB_FILE, shown, self.kinds)
        finally:
            shutil.rmtree(scratch)
        if not edits:
            return {}
        (self.change / "change.yaml").write_text("links:\n" + "".join(f"  - {edit.text}\n" for edit in edits))
        below = (self.change / "change.yaml").relative_to(self.lab).as_posix()
        place = layout.path(LAB_FILE) or LAB_FILE
        return {f"{below}:{number}": (place, edit.line) for number, edit in enumerate(edits, start=2)}


def relative(files: Mapping[str, Blob], folder: str) -> dict[str, Blob]:
    """The files below a folder, by their paths in it."""
    found = {}
    for path, blob in files.items():
        inside = below(path, folder)
        if inside is not None:
            found[inside] = blob
    return found


def below(path: str, folder: str) -> str | None:
    """A path relative to a folder ("" or ".": the top), None for what is not in it."""
    if folder in ("", "."):
        return path
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else None


def _put(path: Path, content: bytes, *, link: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if link:
        path.symlink_to(content.decode("utf-8", "surrogateescape"))
    else:
        path.write_bytes(content)


def _short(commit: str) -> str:
    return {INDEX: "staged", NOTHING: "nothing"}.get(commit, commit[:9])
