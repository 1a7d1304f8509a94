"""The stream of events: where it was, and its parser. No input or output happens here."""

from __future__ import annotations

import codecs
import json
from typing import TYPE_CHECKING

from ._operations import path, query
from ._types import Record, StreamEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Callable

# The server sends a comment every 15 s. After this time without data the connection counts as lost (seconds).
SILENCE = 40.0


class Follower:
    """Follows a stream over several connections."""

    def __init__(self, workspace_ids: Sequence[str], since: int | None) -> None:
        self.path = path("events")
        self.last = since
        self.query = query(workspace_id=list(workspace_ids))
        self._was_connected = False
        self._connect()

    def headers(self) -> dict[str, str]:
        """The headers of the next connection."""
        self._connect()
        return {"Accept": "text/event-stream", **({} if self.last is None else {"Last-Event-ID": str(self.last)})}

    def _connect(self) -> None:
        # Half an event is forgotten. It comes again.
        self._decode: Callable[[bytes], str] = codecs.getincrementaldecoder("utf-8")().decode
        self._rest = ""
        self._is_fresh = True

    def feed(self, data: bytes) -> Iterator[StreamEvent]:
        """The events of some bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
        if self._is_fresh:
            self._is_fresh = False
            # No revision was received before the connection broke, so events may have been missed.
            if self._was_connected and self.last is None:
                yield StreamEvent(type="reset")
            self._was_connected = True
        # The server ends lines with a line feed only.
        *blocks, self._rest = (self._rest + self._decode(data)).split("\n\n")
        for block in blocks:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":")
            if "data" in fields:
                if "id" in fields:
                    self.last = int(fields["id"])
                event = StreamEvent(json.loads(fields["data"], object_hook=Record))
                event.setdefault("type", fields.get("event", "message"))
                event.setdefault("revision", self.last)
                yield event
