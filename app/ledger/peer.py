"""Another node, and what is known of it."""

from typing import Final, NamedTuple

from app.core.window import Shape
from app.core.windows import Windows

# Who has said nothing for so long, while others were heard, has vanished.
SILENT_MS_MAX: Final = 3000


class Source(NamedTuple):
    """Who counted something, and where its rows are."""

    node: str
    """Its name among those who share the store; "" where it has the store alone."""
    store: bytes


class Peer:
    """What is known of another node."""

    def __init__(self, source: Source, shape: Shape) -> None:
        self.source = source
        self.name = source.node
        self.windows = Windows(shape)
        self.heard_ms: int | None = None
        """When it was last heard, by this node's clock; None where only its store has told of it."""
        self.complete_ms = 0
        """Up to when it has told everything, by this node's clock."""
        self.ahead_ms = 0.0
        self.has_left = False
        self.attested_ms: int | None = None
        """Up to when the store has told of it since it was last heard, by this node's clock."""

    def is_silent(self, now_ms: int, listening_since_ms: int) -> bool:
        """Whether it has vanished without a word, as far as it could have been heard."""
        if self.has_left or self.heard_ms is None:
            return False
        return now_ms - max(self.heard_ms, listening_since_ms) > SILENT_MS_MAX

    def is_attested(self, now_ms: int) -> bool:
        """Whether the store has told of it lately: it may be cut off, and count on."""
        return self.attested_ms is not None and now_ms - self.attested_ms <= SILENT_MS_MAX
