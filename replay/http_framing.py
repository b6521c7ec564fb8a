"""Where HTTP/1 messages begin and end in a byte stream (RFC 9112 section 6).

Pure: knows no socket, no clock and no flow; bytes go in, message boundaries come out.
Bodies are counted, never kept, so a large download costs no memory.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

SHADOW_HEADER = b"x-shadow-flow"
METHODS = (
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
)
HEAD_LIMIT_OCTETS = 65_536
_LINE_LIMIT_OCTETS = 8_192


class NotHttp(ValueError):
    """The bytes are not HTTP/1 as RFC 9112 frames it; framing cannot go on."""


@dataclass(frozen=True, slots=True)
class Head:
    """Start line and header fields of one message; names are lower case."""

    start_line: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    def value(self, name: bytes) -> bytes | None:
        """The first field of that (lower case) name, or None."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def method(self) -> bytes:
        """The request method; meaningless for a response."""
        return self.start_line.split(b" ", 1)[0]

    @property
    def status(self) -> int:
        """The response status code; raises NotHttp when there is none."""
        parts = self.start_line.split(b" ", 2)
        if len(parts) < 2 or len(parts[1]) != 3 or not parts[1].isdigit():
            raise NotHttp(f"no status code in {self.start_line[:80]!r}")
        return int(parts[1])

    @property
    def closes(self) -> bool:
        """Whether the sender announced that the connection ends after this message."""
        options = (self.value(b"connection") or b"").lower()
        if b"close" in options:
            return True
        return self.start_line.endswith(b"HTTP/1.0") and b"keep-alive" not in options


@dataclass(frozen=True, slots=True)
class Framed:
    """One complete message and its octet range [start, end) in the stream."""

    head: Head
    start: int
    end: int


class _State(Enum):
    HEAD = 0
    BODY = 1
    CHUNK_SIZE = 2
    CHUNK_DATA = 3
    TRAILER = 4
    UNTIL_CLOSE = 5


class MessageReader:
    """Cuts one direction of a connection into messages, as its bytes arrive.

    A response reader must be told each request's method first (`expect`): an answer to HEAD has
    no body. Interim responses (1xx) count as the beginning of the response that follows them.
    Raises NotHttp from `feed` on bytes that cannot be framed.
    """

    def __init__(self, *, responses: bool) -> None:
        self._responses = responses
        self._methods: deque[bytes] = deque()
        self._state = _State.HEAD
        self._pending = bytearray()
        self._head: Head | None = None
        self._start = 0
        self._consumed = 0
        self._remaining = 0

    @property
    def midway(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._consumed > self._start or bool(self._pending) or self._head is not None

    @property
    def offset(self) -> int:
        """Octets of the stream that belong to what has been framed so far."""
        return self._consumed

    def expect(self, method: bytes) -> None:
        """Say which request the next unanswered response answers."""
        self._methods.append(method)

    def feed(self, data: bytes | memoryview) -> list[Framed]:
        """Take the next bytes of the stream; return the messages that they complete."""
        done: list[Framed] = []
        view = memoryview(data)
        while True:
            if self._state in (_State.BODY, _State.CHUNK_DATA, _State.UNTIL_CLOSE):
                view = self._skip_body(view, done)
                if not self._pending and not view:
                    return done
                if self._state is _State.UNTIL_CLOSE:
                    continue
            if view:
                self._pending += view
                view = view[len(view) :]
            if not self._step(done):
                return done
            if self._pending and self._state in (
                _State.BODY,
                _State.CHUNK_DATA,
                _State.UNTIL_CLOSE,
            ):
                view = memoryview(bytes(self._pending))
                self._pending.clear()

    def end_of_stream(self) -> Framed | None:
        """The stream ended: the message that only the close completes, or None."""
        if self._state is _State.UNTIL_CLOSE and self._head is not None:
            return self._finish()
        return None

    def _skip_body(self, view: memoryview, done: list[Framed]) -> memoryview:
        if self._state is _State.UNTIL_CLOSE:
            self._consumed += len(view)
            return view[len(view) :]
        taken = min(self._remaining, len(view))
        self._remaining -= taken
        self._consumed += taken
        if self._remaining == 0:
            if self._state is _State.BODY:
                done.append(self._finish())
            else:
                self._state = _State.CHUNK_SIZE
        return view[taken:]

    def _step(self, done: list[Framed]) -> bool:
        """Advance over one head or line in `_pending`; False when more bytes are needed."""
        if self._state is _State.HEAD:
            return self._step_head(done)
        if self._state is _State.CHUNK_SIZE:
            line = self._line()
            if line is None:
                return False
            if line == b"":
                return True  # the CRLF that ends the chunk before
            size = line.split(b";", 1)[0].strip()
            if not size or len(size) > 15 or any(c not in b"0123456789abcdefABCDEF" for c in size):
                raise NotHttp(f"chunk size {line[:40]!r}")
            self._remaining = int(size, 16)
            self._state = _State.CHUNK_DATA if self._remaining else _State.TRAILER
            return True
        if self._state is _State.TRAILER:
            line = self._line()
            if line is None:
                return False
            if line == b"":
                done.append(self._finish())
            return True
        return bool(self._pending)

    def _line(self) -> bytes | None:
        end = self._pending.find(b"\n")
        if end < 0:
            if len(self._pending) > _LINE_LIMIT_OCTETS:
                raise NotHttp("line too long")
            return None
        line = bytes(self._pending[:end]).rstrip(b"\r")
        del self._pending[: end + 1]
        self._consumed += end + 1
        return line

    def _step_head(self, done: list[Framed]) -> bool:
        while self._head is None and bytes(self._pending[:1]) in (b"\r", b"\n"):
            del self._pending[:1]  # RFC 9112 2.2: blank lines before a message are ignored
            self._consumed += 1
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            if len(self._pending) > HEAD_LIMIT_OCTETS:
                raise NotHttp("head too long")
            self._check_beginning()
            return False
        head = parse_head(bytes(self._pending[: end + 4]))
        del self._pending[: end + 4]
        self._consumed += end + 4
        if self._responses and 100 <= head.status < 200 and head.status != 101:
            return True
        self._head = head
        self._frame_body(head, done)
        return True

    def _check_beginning(self) -> None:
        begin = bytes(self._pending[:8])
        if self._responses:
            good = b"HTTP/1.".startswith(begin[:7])
        else:
            good = any(m.startswith(begin[: len(m)]) for m in METHODS) or not begin
        if not good and len(begin) == 8:
            raise NotHttp(f"neither request nor response: {begin!r}")

    def _frame_body(self, head: Head, done: list[Framed]) -> None:
        method = b""
        if self._responses:
            method = self._methods.popleft() if self._methods else b""
            status = head.status
            if method == b"HEAD" or status in (204, 304):
                done.append(self._finish())
                return
            if status == 101:
                self._state = _State.UNTIL_CLOSE
                return
        if b"chunked" in (head.value(b"transfer-encoding") or b"").lower():
            self._state = _State.CHUNK_SIZE
            return
        length = head.value(b"content-length")
        if length is None:
            if self._responses:
                self._state = _State.UNTIL_CLOSE
            else:
                done.append(self._finish())
            return
        if not length.isdigit() or len(length) > 15:
            raise NotHttp(f"content-length {length[:40]!r}")
        self._remaining = int(length)
        if self._remaining:
            self._state = _State.BODY
        else:
            done.append(self._finish())

    def _finish(self) -> Framed:
        if self._head is None:
            raise NotHttp("message without a head")
        framed = Framed(self._head, self._start, self._consumed)
        self._head = None
        self._start = self._consumed
        self._state = _State.HEAD
        return framed


def parse_head(head: bytes) -> Head:
    """Start line and fields of a head that ends in a blank line; raises NotHttp."""
    lines = head.split(b"\r\n")
    start = lines[0]
    if not (start.startswith(b"HTTP/1.") or start.endswith((b" HTTP/1.1", b" HTTP/1.0"))):
        raise NotHttp(f"start line {start[:80]!r}")
    headers = []
    for line in lines[1:]:
        if not line:
            break
        name, colon, value = line.partition(b":")
        if not colon:
            raise NotHttp(f"header line {line[:80]!r}")
        headers.append((name.strip().lower(), value.strip()))
    return Head(start, tuple(headers))


def response_head(pieces: Iterable[bytes]) -> Head | None:
    """The head of the final response that these pieces begin with, or None; bodies are not read."""
    begun = bytearray()
    for piece in pieces:
        begun += piece[:HEAD_LIMIT_OCTETS]
        while (end := begun.find(b"\r\n\r\n")) >= 0:
            try:
                head = parse_head(bytes(begun[: end + 4]))
                interim = 100 <= head.status < 200 and head.status != 101
            except NotHttp:
                return None
            if not interim:
                return head
            del begun[: end + 4]
    return None


def one_request(data: bytes) -> Head | None:
    """The head of `data` when it is exactly one complete request, else None."""
    return _exactly_one(data, MessageReader(responses=False))


def one_response(data: bytes, method: bytes) -> Head | None:
    """The head of `data` when it is exactly one complete response to `method`, else None."""
    reader = MessageReader(responses=True)
    reader.expect(method)
    return _exactly_one(data, reader)


def _exactly_one(data: bytes, reader: MessageReader) -> Head | None:
    try:
        framed = reader.feed(data)
    except NotHttp:
        return None
    last = reader.end_of_stream()
    if last is not None:
        framed.append(last)
    if len(framed) != 1 or reader.midway or framed[0].end != len(data):
        return None
    return framed[0].head


def tagged(request: bytes, tag: str) -> bytes:
    """The request with `X-Shadow-Flow: tag` as its first field.

    A proxy may spread a client's requests over several server connections; the tag is what lets
    the server side know which request this is.
    """
    end = request.index(b"\r\n") + 2
    return request[:end] + b"X-Shadow-Flow: " + tag.encode("ascii") + b"\r\n" + request[end:]


def looks_like_request(data: bytes) -> bool:
    """Whether bytes begin, or could begin, an HTTP/1 request."""
    return bool(data) and any(m.startswith(data[: len(m)]) for m in METHODS)
