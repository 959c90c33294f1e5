"""Options of an endpoint: where it listens, its engines, and the limits on requests."""

import math
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.serve.scale import Scale
from ship.backbone_spec import BUNDLED
from ship.images.decoding import ALLOWED_FORMATS
from ship.settings.view import MAX_PIXELS

__all__ = ["EngineOptions", "Inside", "Limits", "ServeOptions"]

Inside = Literal["inside"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on requests, enforced by the ingress.

    Attributes:
        max_body_bytes: Size of a request body, multipart wrapping included.
        max_pixels: Pixels of an image, read from its header before it is decoded (``SHIP_MAX_PIXELS``).
        formats: Accepted image formats, told by content.
        decode_cpu_s: CPU time that decoding an image may take, beside that for its pixels.
        decode_cpu_s_per_megapixel: CPU time that decoding may take for each million pixels.
        decode_processes: Processes that decode small pictures; None for one more than there are cores,
            and nine at most.
        max_batch_items: Questions of one batch.
        max_batch_images: Images of one batch.
        max_batch_bytes: Size of a batch request, multipart wrapping included.
        max_inside: Requests that are being read, decoded or answered in one ingress; more are refused (429);
            one token alone gets half of the places, and one task a third.
        max_inside_bytes: Size of their bodies, all together, as far as they have arrived.
        body_idle_s: Longest pause of a body that is arriving; after it the request is refused (408).
        probe_keep_s: Seconds for which readiness and the page of metrics are kept, however often they are
            asked for.
        stats_timeout_s: Timeout for the engine's part of the metrics; Prometheus' own is ten seconds.
        timeout_s: Time limit of a request, reading and a second try included; a client may ask for less.
        retry_after_s: Least Retry-After of a refusal for lack of capacity.
        token_grace_s: Longest time that tokens stay valid while they cannot be read from the store.
        request_log: File that gets a JSON line for each request; None for none.
        cors_origins: Origins whose web pages may read replies, ``*`` for all; without any none may.
        keep: Which pictures are kept in the store, see ``keep_rules``; without any none are.
        keep_pictures: Most pictures that are kept of a task.
        keep_bytes: Size of all of them.
        keep_days: Days after which they are removed.
    """

    max_body_bytes: int = 20 << 20
    max_pixels: int = MAX_PIXELS
    formats: tuple[str, ...] = ALLOWED_FORMATS
    decode_cpu_s: float = 1.0
    decode_cpu_s_per_megapixel: float = 0.25
    decode_processes: int | None = None
    max_batch_items: int = 256
    max_batch_images: int = 64
    max_batch_bytes: int = 64 << 20
    max_inside: int = 512
    max_inside_bytes: int = 512 << 20
    body_idle_s: float = 10.0
    probe_keep_s: float = 1.0
    stats_timeout_s: float = 1.0
    timeout_s: float = 30.0
    retry_after_s: int = 1
    token_grace_s: float = 12 * 3600.0
    request_log: str | None = None
    cors_origins: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    keep_pictures: int = 1000
    keep_bytes: int = 1 << 30
    keep_days: float = 30.0

    @property
    def max_at_door(self) -> int:
        """Requests inside, and those that are being refused, of one ingress; more are refused before it.

        What is between is little: more than that come faster than they can be refused.
        """
        return self.max_inside + 128

    def retry_after(self, wait_s: float = 0.0) -> dict[str, str]:
        """The header for a client that was turned away: whole seconds, and no fewer than ``wait_s``."""
        return {"Retry-After": str(max(self.retry_after_s, math.ceil(wait_s)))}


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of each engine replica.

    Attributes:
        max_batch_rows: Rows of one forward pass.
        batch_wait_s: The most that a batch waits for more rows; how long it does, is found out.
        max_waiting: Rows that wait in one replica; more are refused (429), those of the task that has most.
        max_pass_s: Target duration of a forward pass: on a slow device it has fewer rows.
        max_queue_s: Target waiting time of a row: on a slow device fewer rows may wait.
        poll_s: Seconds between two looks at the catalog.
        retry_s: Seconds until a prompt that could not be fetched is tried again.
        first_sync_timeout_s: Longest time that a new replica stays out of service to read its first catalog.
        num_loaders: Prompts that are loaded at a time.
        slot_bytes: Device memory for prompts; on a CPU it is taken as prompts come. When it is full, a prompt
            that is asked for takes the place of the ones used longest ago.
        pinned: Patterns of tasks whose champions never give way.
        load_wait_s: Longest time that a request waits for its prompt to be loaded.
        precision: Dtype of weights, activations and prompts: ``float32``, ``bfloat16``, ``float16``, or
            ``auto`` for bfloat16 where the device multiplies in it and float32 elsewhere.
        cache: Folder of prompts and of the last catalog on this machine, see ``Settings.cache``; None keeps
            none.
        cache_bytes: The most that the prompts may take; 0 keeps neither.
    """

    max_batch_rows: int = 32
    batch_wait_s: float = 0.005
    max_waiting: int = 256
    max_pass_s: float = 3.0
    max_queue_s: float = 20.0
    poll_s: float = 1.0
    retry_s: float = 10.0
    first_sync_timeout_s: float = 60.0
    num_loaders: int = 4
    slot_bytes: int = 2 << 30
    pinned: tuple[str, ...] = ()
    load_wait_s: float = 10.0
    precision: str = "auto"
    cache: str | None = None
    cache_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Options of an endpoint.

    Attributes:
        host: Address to listen on; loopback by default, because nothing is encrypted.
        port: TCP port to listen on; 0 for any free one.
        name: Name of the endpoint on its Ray cluster; None for one by the store.
        auth: Whether a request needs a token, see ``token_changes``.
        backbones: Backbones that serve, see ``ship.backbone_spec``; a path is absolute. Each has engines of
            its own; the first one is asked about tasks that are not known yet.
        image_size: Height and width of the backbone's input in pixels; None for its own.
        engines: Number of engines of each backbone.
        ingresses: Number of ingresses; ``inside`` has one in the process of each engine, of one backbone.
        num_cpus_per_replica: CPUs reserved for each engine, and its most threads. None shares a Ray of our
            own evenly, and takes one CPU of a cluster that others use too.
        engine: Options of each engine.
        limits: Limits on requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    auth: bool = True
    backbones: tuple[str, ...] = (BUNDLED,)
    image_size: int | None = None
    engines: Scale = field(default_factory=Scale)
    ingresses: Scale | Inside = field(default_factory=Scale)
    num_cpus_per_replica: int | None = None
    engine: EngineOptions = field(default_factory=EngineOptions)
    limits: Limits = field(default_factory=Limits)
