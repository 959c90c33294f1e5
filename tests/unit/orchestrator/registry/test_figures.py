from xml.etree import ElementTree

import pytest

from orchestrator.registry.figures import UNKNOWN_COLOR, draw_affinity, draw_confusion

AFFINITY = [[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 1.0]]
SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def texts(svg: bytes) -> list[str]:
    return [element.text or "" for element in parse(svg).iter(f"{SVG}text")]


def colors(svg: bytes) -> set[str]:
    """Colours that something is filled with."""
    return {element.attrib["fill"] for element in parse(svg).iter() if "fill" in element.attrib}


def test_each_level_is_framed_in_red() -> None:
    rects = parse(draw_affinity(AFFINITY, [0, 2], 0.95)).iter(f"{SVG}rect")
    frames = [rect.attrib for rect in rects if rect.get("stroke") == "#ff0000"]

    widths = [int(frame["width"]) for frame in frames]
    assert [width // min(widths) for width in widths] == [2, 1]
    assert [frame["height"] for frame in frames] == [frame["width"] for frame in frames]


def test_the_same_record_gives_the_same_bytes() -> None:
    assert draw_affinity(AFFINITY, [0, 2], 0.95) == draw_affinity(AFFINITY, [0, 2], 0.95)


def test_a_figure_says_what_it_is_and_refers_to_no_other_file() -> None:
    svg = draw_affinity(AFFINITY, [0, 2], 0.95)

    root = parse(svg)
    assert root.attrib["role"] == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "Affinity of layers: 2 levels, threshold 0.950"
    assert svg.count(b"http") == 1, "the namespace"
    assert b"href" not in svg


@pytest.mark.parametrize("num_labels", [1, 12, 40])
def test_any_number_of_classes_is_drawn(num_labels: int) -> None:
    confusion = [[int(row == column) for column in range(num_labels)] for row in range(num_labels)]
    svg = draw_confusion(confusion, [f"class {n}" for n in range(num_labels)])

    assert "#08306b" in colors(svg)
    assert ("class 0" in texts(svg)) is (num_labels <= 30)
    assert len(texts(svg)) < 300


def test_counts_are_written_where_there_is_room() -> None:
    assert {"17", "3"} <= set(texts(draw_confusion([[17, 3], [0, 9]], ["good", "bad"])))


def test_a_matrix_of_a_thousand_classes_stays_small() -> None:
    confusion = [[int(row == column) for column in range(1000)] for row in range(1000)]

    assert len(draw_confusion(confusion, [str(n) for n in range(1000)])) < 100_000


def test_a_label_may_be_any_text_and_is_no_markup() -> None:
    labels = [
        '"><script>alert(1)</script>',
        "良品\nzwei\tTeile",
        "a\x00b\x1b\ud800",
        "&amp;",
        "a" * 500,
        "$x^",
    ]
    svg = draw_confusion([[1] * 6] * 6, labels)

    found = texts(svg)
    assert {labels[0][:24], "良品 zwei Teile", "a\ufffdb\ufffd\ufffd", "&amp;", "a" * 24, "$x^"} <= set(found)
    assert not list(parse(svg).iter(f"{SVG}script"))


def test_what_is_no_number_is_gray_and_leaves_the_rest_to_be_seen() -> None:
    svg = draw_affinity([[1.0, float("nan")], [float("nan"), 0.5]], [0], 0.95)

    assert {UNKNOWN_COLOR, "#fde725", "#440154"} <= colors(svg)


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        draw_affinity([[1.0, 0.5]], [0], 0.95)
