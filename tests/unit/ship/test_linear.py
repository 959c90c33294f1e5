"""Linear layers by oneDNN compute what PyTorch's own do, gradients included."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ship import linear as linears
from ship.backbone import Backbone
from ship.linear import FrozenLinear, freeze_linears, linear


@pytest.fixture
def by_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Shapes of the inputs that went to oneDNN, whatever the processor and however few."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    shapes: list[tuple[int, ...]] = []
    multiply = linears._multiply

    def note(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append(tuple(x.shape))
        return multiply(x, weight, bias)

    monkeypatch.setattr(linears, "_is_faster_by_onednn", lambda: True)
    monkeypatch.setattr(linears, "_multiply", note)
    monkeypatch.setattr(linears, "_MANY", 1)
    return shapes


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        pytest.param(draw(5, 12), id="matrix"),
        pytest.param(draw(2, 5, 12), id="tokens"),
        pytest.param(draw(3, 7, 12)[:, :1], id="class tokens"),
        pytest.param(draw(3, 12, 5).transpose(1, 2), id="transposed"),
        pytest.param(draw(1, 2, 3, 12), id="four"),
    ],
)
def test_products_and_gradients_are_those_of_pytorch(
    by_onednn: list[tuple[int, ...]], x: Tensor, has_bias: bool
):
    weight, bias = draw(9, 12), draw(9) if has_bias else None
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias))
    ours, theirs = (x.clone().requires_grad_(True) for _ in range(2))
    product = linear(ours, weight, bias)
    upstream = draw(*product.shape)
    product.backward(upstream)
    F.linear(theirs, weight, bias).backward(upstream)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert by_onednn == [tuple(x.shape)] * 2 + [tuple(product.shape)]


def test_a_gradient_that_is_expanded_is_taken_as_well(by_onednn: list[tuple[int, ...]]):
    ours, theirs = (draw(4, 12).requires_grad_(True) for _ in range(2))
    linear(ours, draw(9, 12)).sum().backward()
    F.linear(theirs, draw(9, 12)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        pytest.param(draw(4, 12), draw(9, 12).requires_grad_(True), id="trained weights"),
        pytest.param(draw(4, 12).double(), draw(9, 12).double(), id="float64"),
        pytest.param(draw(4, 12).bfloat16(), draw(9, 12).bfloat16(), id="bfloat16"),
        pytest.param(draw(0, 12), draw(9, 12), id="nothing"),
        pytest.param(torch.empty(4, 12, device="meta"), torch.empty(9, 12, device="meta"), id="elsewhere"),
    ],
)
def test_all_else_is_pytorchs(by_onednn: list[tuple[int, ...]], x: Tensor, weight: Tensor):
    product = linear(x, weight)
    assert (product.shape, product.dtype) == ((x.shape[0], 9), x.dtype)
    assert product.requires_grad == weight.requires_grad
    assert by_onednn == []


def test_little_is_pytorchs(by_onednn: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(linears, "_MANY", 4 * 12 * 9 + 1)
    linear(draw(4, 12), draw(9, 12))
    assert by_onednn == []
    linear(draw(5, 12), draw(9, 12))
    assert by_onednn == [(5, 12)]


def test_layers_keep_names_parameters_and_mode(by_onednn: list[tuple[int, ...]]):
    module = nn.Sequential(nn.Linear(12, 9), nn.GELU(), nn.Sequential(nn.Linear(9, 3, bias=False))).eval()
    before, x = copy.deepcopy(module), draw(4, 12)
    weights = dict(module.named_parameters())
    freeze_linears(module.requires_grad_(False))
    assert [type(module[0]), type(module[2][0])] == [FrozenLinear, FrozenLinear]
    assert not module[0].training
    after = dict(module.named_parameters())
    assert after.keys() == weights.keys()
    assert all(after[name] is weights[name] for name in weights)
    torch.testing.assert_close(module(x), before(x))
    assert len(by_onednn) == 2
    torch.testing.assert_close(copy.deepcopy(module)(x), before(x))
    freeze_linears(module)
    assert type(module[0]) is FrozenLinear


def test_a_backbone_computes_by_it_and_answers_as_before(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, by_onednn: list[tuple[int, ...]]
):
    layers = [module for module in backbone.vit.modules() if isinstance(module, nn.Linear)]
    assert {type(layer) for layer in layers} == {FrozenLinear}
    images = torch.zeros(2, 3, *backbone.image_size, dtype=torch.uint8)
    with torch.no_grad():
        found = backbone.vit(backbone.normalise(images))
        assert len(by_onednn) == len(layers)
        monkeypatch.setattr(linears, "_is_faster_by_onednn", lambda: False)
        torch.testing.assert_close(found, backbone.vit(backbone.normalise(images)))
    assert len(by_onednn) == len(layers)


@pytest.mark.parametrize(
    ("vendor", "capability", "has_mkl", "is_faster"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("AuthenticAMD", "AVX2", True, False),
        ("AuthenticAMD", "AVX512", False, False),
        ("GenuineIntel", "AVX512", True, False),
        ("", "AVX512", True, False),
    ],
)
def test_it_computes_where_mkl_leaves_instructions_unused(
    monkeypatch: pytest.MonkeyPatch, vendor: str, capability: str, has_mkl: bool, is_faster: bool
):
    monkeypatch.setattr(linears, "_vendor", lambda: vendor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    # What the cache keeps is this machine's.
    assert linears._is_faster_by_onednn.__wrapped__() == is_faster


@pytest.mark.parametrize(
    ("cpu", "vendor"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 2\n", "AuthenticAMD"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", ""),
    ],
)
def test_the_processor_names_its_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu: str, vendor: str
):
    (tmp_path / "cpuinfo").write_text(cpu)
    monkeypatch.setattr(linears, "_CPU_INFO", tmp_path / "cpuinfo")
    assert linears._vendor() == vendor
