"""Rows of a mixed batch equal rows served alone, and both equal the plain forward pass."""

import gc
import pickle
import threading

import pytest
import torch
from torch import Tensor

from ship.artifact.files import probe_image
from ship.backbone import Backbone
from ship.errors import ConfigError, PromptTooLargeError, SlotsFullError
from ship.evaluation.prediction import predict
from ship.method.model import forward
from ship.method.prompts import Prompt
from ship.runtime.baking import bake
from ship.runtime.runtime import Runtime
from ship.runtime.slots import Slot
from ship.settings.config import TuneConfig

# Padded and batched matrix products add in another order.
TOLERANCE = 1e-5


def make_prompt(seed: int, level_starts: list[int], num_classes: int, **settings: object) -> Prompt:
    generator = torch.Generator().manual_seed(seed)
    head_layers, num_tiles = settings.pop("head_layers", ()), settings.pop("num_tiles", 1)
    config = TuneConfig(**{"num_independent": 3, "num_shared": 2, "num_attribute": 4, **settings})
    prompt = Prompt(
        config,
        level_starts=level_starts,
        depth=4,
        prototypes_RD=torch.randn(7, 32, generator=generator),
        num_classes=num_classes,
        head_layers=head_layers,
        num_tiles=num_tiles,
    )
    prompt.initialise(generator)
    with torch.no_grad():
        prompt.gate.copy_(torch.rand(4, generator=generator) * 0.5)
        # Xavier over these small shapes is faint; a prompt that hardly acts would prove little.
        for up in prompt.low_rank.up.values() if prompt.low_rank else ():
            up.copy_(torch.randn(up.shape, generator=generator) * 0.3)
        for tensor in (prompt.independent, prompt.shared, prompt.attribute):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return prompt.requires_grad_(False)


PROMPTS = {
    "three levels": make_prompt(1, [0, 1, 3], 3),
    "every layer a level": make_prompt(2, [0, 1, 2, 3], 5, num_independent=6),
    "two levels": make_prompt(3, [0, 2], 2),
    "one level": make_prompt(4, [0], 4),
    "no independent": make_prompt(5, [0, 1, 2], 3, num_independent=0),
    "attribute only": make_prompt(6, [0, 2, 3], 3, num_independent=0, num_shared=0),
    "no prompt tokens": make_prompt(7, [0, 2], 6, num_independent=0, num_shared=0, num_attribute=0),
    "other attribute count": make_prompt(8, [0, 1, 3], 2, num_attribute=9, num_shared=0),
    "low rank": make_prompt(9, [0, 2], 3, kind="lora", rank=2),
    "low rank everywhere": make_prompt(10, [0, 2], 3, kind="ship+lora", low_rank_on="qkv+proj+fc1+fc2"),
    "low rank on the MLP": make_prompt(11, [0], 3, kind="lora", rank=5, low_rank_on="fc1"),
    "head over layers": make_prompt(12, [0, 2], 4, head_layers=(0, 1, 2)),
    "head over other layers": make_prompt(13, [0, 2], 3, kind="lora", head_layers=(1,)),
    "linear probe": make_prompt(14, [0, 1], 3, kind="probe"),
}


@pytest.fixture(scope="module")
def runtime(backbone: Backbone) -> Runtime:
    return Runtime(backbone, capacity_bytes=4 << 20)


@pytest.fixture(scope="module")
def slots(runtime: Runtime) -> dict[str, Slot]:
    return {name: runtime.insert(prompt) for name, prompt in PROMPTS.items()}


def plain(backbone: Backbone, prompt: Prompt, images: Tensor) -> Tensor:
    with torch.no_grad():
        return forward(backbone, prompt, backbone.normalise(images)).logits_BC


@pytest.mark.parametrize("name", PROMPTS)
def test_baked_answers_equal_the_plain_forward_pass(
    backbone: Backbone, runtime: Runtime, slots: dict[str, Slot], images: Tensor, name: str
) -> None:
    found = runtime.infer(images, [slots[name]] * len(images))
    expected = plain(backbone, PROMPTS[name], images)
    torch.testing.assert_close(torch.stack(found), expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_prompts_change_the_answers(backbone: Backbone, images: Tensor) -> None:
    prompt = PROMPTS["three levels"]
    with torch.no_grad():
        bare = prompt.head(backbone.vit(backbone.normalise(images)))
    assert float((plain(backbone, prompt, images) - bare).abs().max()) > 0.05


def test_rows_of_a_mixed_batch_equal_rows_served_alone(
    runtime: Runtime, slots: dict[str, Slot], images: Tensor
) -> None:
    names = list(PROMPTS) * 2
    rows = images[torch.arange(len(names)) % len(images)]
    mixed = runtime.infer(rows, [slots[name] for name in names])
    for row, name in enumerate(names):
        alone = runtime.infer(rows[row : row + 1], [slots[name]])[0]
        torch.testing.assert_close(mixed[row], alone, atol=TOLERANCE, rtol=TOLERANCE)
        assert mixed[row].shape == (PROMPTS[name].num_classes,)


def test_rows_give_the_features_that_tuning_sees(
    backbone: Backbone, runtime: Runtime, slots: dict[str, Slot], images: Tensor
) -> None:
    """Of every kind of prompt in one batch, also of heads that read further tokens; scores as of `infer`."""
    names = list(PROMPTS)
    rows = images[torch.arange(len(names)) % len(images)]
    scores = runtime.infer(rows, [slots[name] for name in names])
    outputs = runtime.infer_rows(rows, [slots[name] for name in names])
    for row, name in enumerate(names):
        plain = predict(backbone, PROMPTS[name], rows[row : row + 1])
        assert torch.equal(outputs[row].logits_C, scores[row])
        assert outputs[row].feature_D.shape == (backbone.info.width,)
        torch.testing.assert_close(
            outputs[row].feature_D, plain.features_BD[0], atol=TOLERANCE, rtol=TOLERANCE
        )
    bare = backbone.vit(backbone.normalise(rows[:1])).detach()[0]
    probe = runtime.infer_rows(rows[:1], [slots["linear probe"]])[0]
    torch.testing.assert_close(probe.feature_D, bare, atol=TOLERANCE, rtol=TOLERANCE)


def test_empty_and_unequal_batches(runtime: Runtime) -> None:
    image = probe_image(runtime.backbone.image_size)
    assert runtime.infer(image[:0], []) == []
    assert runtime.infer_rows(image[:0], []) == []
    with pytest.raises(ValueError, match="expected 0 images for 0 slots, got 1"):
        runtime.infer(image, [])


TILED = {
    "four tiles": make_prompt(20, [0, 2], 3, num_tiles=4),
    "two tiles, low rank": make_prompt(21, [0, 2], 2, kind="ship+lora", head_layers=(0, 2), num_tiles=2),
}


def test_tiles_are_rows_of_a_mixed_batch_and_one_answer(backbone: Backbone, images: Tensor) -> None:
    runtime = Runtime(backbone, capacity_bytes=4 << 20)
    prompts = [TILED["four tiles"], PROMPTS["low rank"], TILED["two tiles, low rank"], TILED["four tiles"]]
    slots = [runtime.insert(prompt) for prompt in prompts]
    tiles = images[torch.arange(11) % len(images)]
    mixed = runtime.infer(tiles, slots)
    for found, prompt, own in zip(mixed, prompts, tiles.split([4, 1, 2, 4]), strict=True):
        torch.testing.assert_close(found, plain(backbone, prompt, own)[0], atol=TOLERANCE, rtol=TOLERANCE)
    for row, prompt, own in zip(
        runtime.infer_rows(tiles, slots), prompts, tiles.split([4, 1, 2, 4]), strict=True
    ):
        # The mean over tiles, whatever the head makes of them.
        wanted = predict(backbone, prompt, own.unsqueeze(0) if prompt.num_tiles > 1 else own).features_BD[0]
        torch.testing.assert_close(row.feature_D, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    # Tasks that are asked about one picture share its tiles.
    shared = runtime.infer(tiles, [slots[0], slots[2], slots[3]], image_of_row=[0, 5, 0])
    torch.testing.assert_close(shared[2], mixed[0], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(shared[1], mixed[2], atol=TOLERANCE, rtol=TOLERANCE)
    with pytest.raises(ValueError, match="places among 11 images"):
        runtime.infer(tiles, [slots[0]], image_of_row=[8])
    with pytest.raises(ValueError, match="expected 4 images for 1 slots, got 3"):
        runtime.infer(tiles[:3], slots[:1])


def test_rows_may_share_images(backbone: Backbone, images: Tensor) -> None:
    runtime = Runtime(backbone, capacity_bytes=4 << 20)
    first, second = (runtime.insert(PROMPTS[name]) for name in ("three levels", "two levels"))
    slots, image_of_row = [first, second, first, second, first], [1, 1, 0, 0, 0]
    expected = runtime.infer(images[torch.tensor(image_of_row)], slots)
    for found, wanted in zip(runtime.infer(images[:2], slots, image_of_row), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)
    with pytest.raises(ValueError, match="among 2 images"):
        runtime.infer(images[:2], [first], [2])


@pytest.mark.parametrize("level_starts", [[1, 2], [0, 2, 2], [0, 4], [0, 3, 1]])
def test_level_starts_that_cannot_be_are_refused(level_starts: list[int]) -> None:
    with pytest.raises(ConfigError, match="rising layer numbers"):
        make_prompt(0, level_starts, 2)


def test_attribute_groups_belong_to_the_last_levels_after_layer_0() -> None:
    groups = {name: PROMPTS[name].attribute.shape[0] for name in PROMPTS}
    assert groups["every layer a level"] == 2
    assert groups["two levels"] == 1
    assert groups["one level"] == 0
    entering = [PROMPTS["every layer a level"].attribute_group_at(layer) for layer in range(4)]
    assert entering == [None, None, 0, 1]


def test_a_lower_precision_stays_near_float32(backbone: Backbone, images: Tensor) -> None:
    names = [name for name in PROMPTS for _ in images]
    rows = images.repeat(len(PROMPTS), 1, 1, 1)
    expected = torch.cat([plain(backbone, PROMPTS[name], images).flatten() for name in PROMPTS])
    # Eight and eleven bits of mantissa through four blocks; scores are of size one.
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        runtime = Runtime(backbone, dtype=dtype, capacity_bytes=4 << 20)
        slots = {name: runtime.insert(prompt) for name, prompt in PROMPTS.items()}
        found = torch.cat(runtime.infer(rows, [slots[name] for name in names]))
        assert float((found - expected).abs().max()) < tolerance, dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_twice_as_many_prompts_fit_in_half_precision(backbone: Backbone, dtype: torch.dtype) -> None:
    prompt, padding_bytes = PROMPTS["three levels"], 32 * dtype.itemsize
    num_bytes = Runtime(backbone, capacity_bytes=1 << 20).insert(prompt).num_bytes
    runtime = Runtime(backbone, dtype=dtype, capacity_bytes=num_bytes + padding_bytes)
    held = [runtime.insert(prompt) for _ in range(2)]
    assert [slot.num_bytes for slot in held] == [num_bytes // 2] * 2
    assert runtime.used_bytes == num_bytes
    with pytest.raises(SlotsFullError):
        runtime.insert(prompt)


def test_rows_return_to_the_pool_when_a_slot_is_let_go(backbone: Backbone) -> None:
    runtime = Runtime(backbone, capacity_bytes=4 << 20)
    held = runtime.insert(PROMPTS["three levels"])
    assert runtime.used_bytes == held.num_bytes
    other = runtime.insert(PROMPTS["one level"])
    assert runtime.used_bytes == held.num_bytes + other.num_bytes
    del other
    assert runtime.used_bytes == held.num_bytes
    del held
    assert runtime.used_bytes == 0


def test_a_full_pool_refuses_and_says_what_is_free(backbone: Backbone, images: Tensor) -> None:
    prompt = PROMPTS["three levels"]
    num_bytes = Runtime(backbone, capacity_bytes=1 << 20).insert(prompt).num_bytes
    # One row of 32 floats is the padding.
    runtime = Runtime(backbone, capacity_bytes=num_bytes + 128)
    held = runtime.insert(prompt)
    with pytest.raises(SlotsFullError, match=f"needs {num_bytes} bytes of the slot pool, 0 of"):
        runtime.insert(prompt)
    assert runtime.infer(images[:1], [held])[0].shape == (3,)
    del held
    runtime.insert(prompt)


def test_a_prompt_that_never_fits_is_told_apart_from_a_full_pool(backbone: Backbone) -> None:
    prompt = PROMPTS["three levels"]
    num_bytes = Runtime(backbone, capacity_bytes=1 << 20).insert(prompt).num_bytes
    runtime = Runtime(backbone, capacity_bytes=num_bytes)
    with pytest.raises(
        PromptTooLargeError, match=f"needs {num_bytes} bytes, and the whole slot pool has"
    ) as told:
        runtime.insert(prompt)
    assert pickle.loads(pickle.dumps(told.value)).lacking_bytes == 128, "the padding's row"
    runtime = Runtime(backbone, capacity_bytes=num_bytes + 128 + 256)
    held = runtime.insert(prompt)
    with pytest.raises(SlotsFullError) as full:
        runtime.insert(prompt)
    assert not isinstance(full.value, PromptTooLargeError)
    assert full.value.lacking_bytes == num_bytes - 256
    del held


def test_ten_thousand_swaps_take_no_more_memory(backbone: Backbone, images: Tensor) -> None:
    baked = [bake(backbone, PROMPTS[name]) for name in ("three levels", "every layer a level", "one level")]
    most = max(Runtime(backbone, capacity_bytes=1 << 20).insert(prompt).num_bytes for prompt in baked)
    runtime = Runtime(backbone, capacity_bytes=4 * most)
    expected = [runtime.infer(images[:1], [runtime.insert(prompt)])[0] for prompt in baked]
    served = runtime.insert(baked[0])
    for swap in range(10_000):
        # The old one is held until its successor stands, as in serving.
        served = runtime.insert(baked[swap % 3])
        assert runtime.used_bytes == served.num_bytes
        if swap % 1000 == 0:
            torch.testing.assert_close(runtime.infer(images[:1], [served])[0], expected[swap % 3])


def test_swaps_under_load_never_disturb_another_row(backbone: Backbone, images: Tensor) -> None:
    """Rows of a steady task, and of one that is swapped all the time: always one whole version."""
    runtime = Runtime(backbone, capacity_bytes=1 << 20)
    steady, versions = (
        PROMPTS["three levels"],
        [PROMPTS["every layer a level"], PROMPTS["other attribute count"]],
    )
    expected = [plain(backbone, prompt, images[:1])[0] for prompt in (steady, *versions)]
    held, current = [runtime.insert(steady)], [runtime.insert(versions[0])]
    stop, wrong, num_answers = threading.Event(), [], [0]

    def ask() -> None:
        while not stop.is_set():
            first, second = runtime.infer(images[[0, 0]], [held[0], current[0]])
            # A mixture of two versions would be near neither.
            is_whole = any(
                second.shape == logits.shape
                and torch.allclose(second, logits, atol=TOLERANCE, rtol=TOLERANCE)
                for logits in expected[1:]
            )
            if not is_whole or not torch.allclose(first, expected[0], atol=TOLERANCE, rtol=TOLERANCE):
                wrong.append((first, second))
            num_answers[0] += 1

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    num_swaps = 0
    while num_swaps < 300 or num_answers[0] < 60:
        num_swaps += 1
        current[0] = runtime.insert(versions[num_swaps % 2])
    stop.set()
    for asker in askers:
        asker.join()
    assert not wrong
    held.clear()
    current.clear()
    gc.collect()
    assert runtime.used_bytes == 0
