"""How the endpoint is set up: limits at the door, and how the engine batches."""

from dataclasses import dataclass

from ship.images import ALLOWED_FORMATS, MAX_PIXELS

__all__ = ["EngineOptions", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the door lets in.

    Attributes:
        max_body_bytes: Of a request, multipart wrapping included.
        max_pixels: Of an image, read from its header before it is decoded.
        formats: Image formats by content.
        timeout_s: How long a request waits for the engine, a second try included.
        retry_after_s: What a client is told that was turned away for lack of capacity.
    """

    max_body_bytes: int = 20 << 20
    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = ALLOWED_FORMATS
    timeout_s: float = 30.0
    retry_after_s: int = 1


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How each engine replica works.

    Attributes:
        max_batch_rows: Rows of one forward pass.
        batch_wait_s: How long the first row of a batch waits for others.
        max_ongoing: Requests inside one replica; several batches, so that the next one is ready in time.
        max_queued: Requests that wait for a replica; more are refused (429).
        poll_s: Between two looks at the catalog.
        retry_s: Until a prompt that could not be fetched is tried again.
        first_sync_timeout_s: How long a new replica stays out of service to load the catalog.
        num_loaders: Prompts that are loaded at a time.
        slot_bytes: Device memory for prompts; on a CPU it is taken as prompts come. When it is full, a prompt
            that is asked for takes the place of the ones used longest ago.
        pinned: Patterns of tasks whose champions never give way.
        load_wait_s: How long a request waits at most for its prompt to be loaded.
        cache: Folder of prompts on this machine, see ``Settings.cache``; None keeps none.
        cache_bytes: The most that it may hold; 0 keeps none.
    """

    max_batch_rows: int = 32
    batch_wait_s: float = 0.005
    max_ongoing: int = 128
    max_queued: int = 256
    poll_s: float = 1.0
    retry_s: float = 10.0
    first_sync_timeout_s: float = 60.0
    num_loaders: int = 4
    slot_bytes: int = 2 << 30
    pinned: tuple[str, ...] = ()
    load_wait_s: float = 10.0
    cache: str | None = None
    cache_bytes: int = 0
