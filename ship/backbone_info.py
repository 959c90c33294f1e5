"""Description of a backbone without its weights: what may be known of it without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["BackboneInfo"]

_MOST_ROWS, _PASS_BYTES = 256, 512 << 20
# Of a block's input, queries, keys, values, attention output, and four widths of the MLP twice.
_PASSING_WIDTHS = 14
_PRODUCTS_OF_A_THREAD = 1e9


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """Description of a backbone without its weights.

    Attributes:
        name: Name by which it was loaded; of a folder or file the last part, without the path.
        architecture: timm model name that builds it.
        model_args: Arguments of that timm model.
        image_size: Height and width of its input in pixels.
        interpolation: Filter by which images are resized to it.
        mean: Mean per channel, of images in 0..1.
        std: Standard deviation per channel, of images in 0..1.
        depth: L, number of blocks.
        width: D, of a token.
        num_heads: H.
        num_tokens: N, patches plus class and register tokens.
        num_params: Weights in all.
        fingerprint: sha256 of architecture, weights and preprocessing, 64 hex digits.
    """

    name: str
    architecture: str
    model_args: dict[str, Any]
    image_size: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    depth: int
    width: int
    num_heads: int
    num_tokens: int
    num_params: int
    fingerprint: str

    @property
    def rows_at_once(self) -> int:
        """Images of a forward pass without gradients that keep to about 512 MiB of activations in float32."""
        widths = _PASSING_WIDTHS * self.num_tokens * self.width
        attention = self.num_heads * self.num_tokens**2
        return max(1, min(_MOST_ROWS, _PASS_BYTES // (4 * (widths + attention))))

    @property
    def most_threads(self) -> int:
        """Threads of a CPU that a forward pass can use, one for each billion products of numbers of an image.

        The threads of a product wait for each other at its end; those of a small one wait longer than they
        work, most of all where other processes want the cores too.
        """
        return max(1, round(self.num_params * self.num_tokens / _PRODUCTS_OF_A_THREAD))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Undo ``to_dict``."""
        tuples = {key: tuple(values[key]) for key in ("image_size", "mean", "std")}
        return cls(**{**values, **tuples})
