"""A backbone of which planning knows the shapes alone."""

from dataclasses import dataclass

__all__ = ["FakeBackbone"]


@dataclass(frozen=True)
class FakeBackbone:
    name: str = "fake"
    fingerprint: str = "f" * 64
    depth: int = 12
    width: int = 16
    image_size: tuple[int, int] = (4, 4)
