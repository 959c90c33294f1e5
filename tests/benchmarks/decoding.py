"""Decoding at the door in processes beside threads: latency, throughput, pauses of the event loop."""

import asyncio
import io
import json
import statistics
import time
from collections import defaultdict

import click
import numpy as np
from PIL import Image

from orchestrator.serve.ingress.decoding import Decoder
from orchestrator.serve.options import Limits
from ship.backbone import load_backbone
from ship.images.decoding import decode_pixels

__all__ = ["decoding"]

_SIZES = ((224, 224), (640, 480), (1600, 1200))


@click.command()
@click.option("--rounds", default=4, show_default=True, type=click.IntRange(min=1), help="Of each size.")
@click.option("--pictures", default=40, show_default=True, type=click.IntRange(min=1), help="Of each round.")
def decoding(rounds: int, pictures: int) -> None:
    """Decode JPEGs in processes and in threads, in turns; medians of the rounds, as JSON."""
    info = load_backbone("bundled").info
    decoders = {"process": Decoder(info, Limits()), "thread": Decoder(info, Limits(), decode_pixels)}
    click.echo(json.dumps(asyncio.run(_measure(decoders, rounds, pictures)), indent=2))


async def _measure(
    decoders: dict[str, Decoder], rounds: int, pictures: int
) -> dict[str, dict[str, dict[str, float]]]:
    found = {}
    for size in _SIZES:
        content = _draw(size)
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number in range(rounds + 1):
            for name, decoder in decoders.items():
                measured = await _round(decoder, content, pictures)
                # The first starts processes and threads.
                for figure, value in measured.items() if number else ():
                    values[name][figure].append(value)
        found[f"{size[0]}x{size[1]}"] = {
            name: {figure: round(statistics.median(all_), 2) for figure, all_ in figures.items()}
            for name, figures in values.items()
        }
    return found


async def _round(decoder: Decoder, content: bytes, pictures: int) -> dict[str, float]:
    alone_s = []
    for _ in range(pictures):
        start_s = time.perf_counter()
        await decoder.decode(content)
        alone_s.append(time.perf_counter() - start_s)
    pauses_s: list[float] = []
    beating = asyncio.create_task(_beat(pauses_s))
    start_s = time.perf_counter()
    await asyncio.gather(*(decoder.decode(content) for _ in range(pictures)))
    taken_s = time.perf_counter() - start_s
    beating.cancel()
    return {
        "ms_alone": 1000 * statistics.median(alone_s),
        "pictures_a_second": pictures / taken_s,
        "ms_pause_p99": 1000 * float(np.quantile(pauses_s or [0.0], 0.99)),
    }


async def _beat(pauses_s: list[float]) -> None:
    """Note how late the event loop comes back to a task that sleeps for a millisecond."""
    while True:
        start_s = time.perf_counter()
        await asyncio.sleep(0.001)
        pauses_s.append(time.perf_counter() - start_s - 0.001)


def _draw(size: tuple[int, int]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "JPEG")
    return file.getvalue()
