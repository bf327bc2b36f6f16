"""What the shell offers the tunnel ring, as plain recording objects: the ring does no IO."""

from __future__ import annotations

from konnectivity.tunnel.reason import Reason, Refusal
from konnectivity.wire import packet
from konnectivity.wire.packet import Packet


class RecordingLink:
    """A link whose fullness the test decides; `sent` are the packets that left."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[Packet] = []
        self.room: int | None = None
        self.silence: float | None = None
        self.given_up = ""

    def probe(self) -> None:
        self.silence = 0.0

    def give_up(self, cause: str) -> None:
        self.given_up = cause

    def send(self, message: bytes) -> None:
        size = int.from_bytes(message[1:5], "big")
        assert message[0] == 0
        assert len(message) == size + 5
        self.sent.append(packet.decode(message[5:]))
        if self.room is not None:
            self.room -= len(message)
            self.full = self.room <= 0

    def take(self) -> list[Packet]:
        taken, self.sent = self.sent, []
        return taken


class RecordingSink:
    """A socket's write side; `slow` is the test's to set."""

    def __init__(self) -> None:
        self.slow = False
        self.unsent = 0
        self.written: list[bytes] = []
        self.paused: list[bool] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.slow:
            self.unsent += len(data)

    def pause_reading(self) -> None:
        self.paused.append(True)

    def resume_reading(self) -> None:
        self.paused.append(False)


class RecordingFrontend(RecordingSink):
    """A frontend; `heard` is what it was told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[object] = []

    def opened(self, connect_id: int) -> None:
        self.heard.append(("opened", connect_id))

    def refused(self, refusal: Refusal) -> None:
        self.heard.append(refusal)

    def closed(self, reason: Reason, error: str) -> None:
        self.heard.append((reason, error))


class RecordingEndpoint(RecordingSink):
    """An endpoint; `ended` is how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = ""

    def finish(self) -> None:
        self.ended = self.ended or "finished"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"
