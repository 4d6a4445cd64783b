"""What crosses the socketpair: four bytes of length, then one msgpack message."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import msgspec
from msgspec import Struct

from server.core.config import EngineConfig
from server.core.errors import InvalidRequest
from server.core.stats import StepStats
from server.core.types import EmbedRequest, EngineEvent, GenerateRequest, ModelInfo, TextPiece

log = logging.getLogger("ingle.engine")

MAX_FRAME = 64 << 20
_HEADER = 4


class Start(Struct, frozen=True, tag="start"):
    """The first frame; `number` counts the engine's processes, from 1."""

    config: EngineConfig
    number: int = 1


class Submit(Struct, frozen=True, tag="submit"):
    request: GenerateRequest


class Embed(Struct, frozen=True, tag="embed"):
    request: EmbedRequest


class Cancel(Struct, frozen=True, tag="cancel"):
    id: str


class Pause(Struct, frozen=True, tag="pause"):
    """Nobody takes its text: it keeps its slot, and says no more until told to Go."""

    id: str


class Go(Struct, frozen=True, tag="go"):
    id: str


class Tokenize(Struct, frozen=True, tag="tokenize"):
    """Answered by Tokenized or Failed, as Detokenize is."""

    id: str
    text: tuple[TextPiece, ...]
    begin: bool = False


class Detokenize(Struct, frozen=True, tag="detokenize"):
    id: str
    tokens: tuple[int, ...]


class Leave(Struct, frozen=True, tag="leave"):
    """Keep what is worth it for the next process, and end."""


class Ready(Struct, frozen=True, tag="ready"):
    info: ModelInfo


class LoadFailed(Struct, frozen=True, tag="load_failed"):
    error: str
    message: str


class StepFrame(Struct, frozen=True, tag="step"):
    """All that happened since the last frame, to all requests, and the steps it took."""

    events: tuple[EngineEvent, ...]
    steps: tuple[StepStats, ...] = ()
    patience: float = 0.0
    """Seconds that the step now begun may take, where that is more than usual."""


Command = Start | Submit | Embed | Cancel | Pause | Go | Tokenize | Detokenize | Leave
Report = Ready | LoadFailed | StepFrame

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(Command)
_reports = msgspec.msgpack.Decoder(Report)


class FrameError(ValueError):
    """The other side does not speak this protocol."""


def encode(message: Command | Report) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(_HEADER, "big") + body


class EnginePipe:
    """The engine process's end: blocking, and safe to send on from two threads."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._reader = sock.makefile("rb")
        self._lock = threading.Lock()

    def receive(self) -> Command | None:
        """The next command; None when the API process is gone."""
        header = self._reader.read(_HEADER)
        if len(header) < _HEADER:
            return None
        body = self._reader.read(_checked(header))
        command: Command = _commands.decode(body)
        return command

    def send(self, message: Report) -> None:
        with self._lock:
            self._sock.sendall(encode(message))


class ApiPipe:
    """The API process's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> ApiPipe:
        return cls(*await asyncio.open_connection(sock=sock, limit=MAX_FRAME))

    async def receive(self) -> Report | None:
        """The next report; None when the engine process is gone or talks nonsense."""
        try:
            header = await self._reader.readexactly(_HEADER)
            body = await self._reader.readexactly(_checked(header))
            report: Report = _reports.decode(body)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except (FrameError, msgspec.MsgspecError):
            log.exception("the engine sent a frame that cannot be read")
            return None
        return report

    def send(self, message: Command) -> None:
        """Raises InvalidRequest for what the other side would have to refuse to read."""
        frame = encode(message)
        if len(frame) > MAX_FRAME:
            raise InvalidRequest("The prompt is too long to be read.", param="messages")
        if not self._writer.is_closing():
            self._writer.write(frame)

    def close(self) -> None:
        self._writer.close()


def _checked(header: bytes) -> int:
    length = int.from_bytes(header, "big")
    if length > MAX_FRAME:
        raise FrameError(f"a frame of {length} bytes")
    return length
