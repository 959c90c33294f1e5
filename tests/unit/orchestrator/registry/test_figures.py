import io

import pytest
from PIL import Image

from orchestrator.registry.figures import draw_affinity, draw_confusion

AFFINITY = [[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]]


def colors(png: bytes) -> set[tuple[int, ...]]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        found = image.convert("RGB").getcolors(maxcolors=1 << 24)
        return {color for _, color in found}


def test_levels_are_framed_in_red() -> None:
    assert (255, 0, 0) in colors(draw_affinity(AFFINITY, [0, 2], 0.95))


def test_the_same_record_gives_the_same_bytes() -> None:
    assert draw_affinity(AFFINITY, [0, 2], 0.95) == draw_affinity(AFFINITY, [0, 2], 0.95)


@pytest.mark.parametrize("num_labels", [1, 12, 40])
def test_any_number_of_classes_is_drawn(num_labels: int) -> None:
    confusion = [[int(row == column) for column in range(num_labels)] for row in range(num_labels)]

    assert len(colors(draw_confusion(confusion, [f"class {n}" for n in range(num_labels)]))) > 2


def test_a_label_may_be_any_text() -> None:
    assert draw_confusion([[1, 0, 0], [0, 1, 0], [0, 0, 0]], ["$x^", "良品\nzwei\tTeile", "a" * 500])


def test_what_is_no_number_leaves_the_rest_to_be_seen() -> None:
    assert len(colors(draw_affinity([[1.0, float("nan")], [float("nan"), 0.5]], [0], 0.95))) > 2


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        draw_affinity([[1.0, 0.5]], [0], 0.95)
