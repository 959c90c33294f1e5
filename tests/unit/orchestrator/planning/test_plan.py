import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import ManifestError
from orchestrator.manifest.floors import Floors
from orchestrator.manifest.model import Manifest, RefusedTask, TaskEntry, Terms
from orchestrator.planning.estimates import Speed
from orchestrator.planning.spec import task_key
from ship.data import DataSource, fingerprint_data
from ship.settings.config import Kind, TuneConfig
from ship.settings.search_config import SearchConfig
from tests.unit.orchestrator.planning.factory import plan, with_terms


def test_all_is_to_be_tuned_at_first(manifest: Manifest) -> None:
    tasks = plan(manifest).to_tune

    assert [task.spec.name for task in tasks] == ["caps", "bolts"]
    spec = tasks[0].spec
    assert spec.data_fingerprint == fingerprint_data(manifest.tasks[0].source)
    assert spec.key == task_key(spec.data_fingerprint, spec.config, "f" * 64)
    assert spec.num_images == 16
    assert spec.tags == {"site": "ulm"}
    assert (tasks[0].num_classes, tasks[0].num_held_out) == (2, 4)
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_what_is_published_is_reused(manifest: Manifest) -> None:
    first = plan(manifest).tasks[0].spec

    again = plan(manifest, published={("caps", first.key)}, speed=Speed(images_per_s=10.0, num_runs=1))
    assert [(task.spec.name, task.action) for task in again.tasks] == [("caps", "reuse"), ("bolts", "tune")]
    assert (again.to_reuse[0].estimate_s, again.to_reuse[0].estimate_bytes) == (0.0, 0)
    assert again.estimate_bytes == again.to_tune[0].estimate_bytes


def test_another_tasks_key_is_not_reused(manifest: Manifest) -> None:
    first = plan(manifest).tasks[0].spec

    assert len(plan(manifest, published={("other", first.key)}).to_tune) == 2


def test_nothing_left_to_do(manifest: Manifest) -> None:
    published = {(task.spec.name, task.spec.key) for task in plan(manifest).tasks}

    done = plan(manifest, published=published)
    assert done.to_tune == ()
    assert (done.estimate_s, done.estimate_bytes) == (0, 0)


def change_data(task: TaskEntry) -> TaskEntry:
    Image.new("L", (4, 4), 255).save(Path(task.source.path) / "ok" / "0.png")
    return task


@pytest.mark.parametrize(
    "change",
    [
        change_data,
        lambda task: replace(task, config=replace(task.config, seed=1)),
        lambda task: replace(task, source=replace(task.source, split_seed=1)),
    ],
    ids=["data", "config", "split"],
)
def test_key_follows_data_config_and_split(
    manifest: Manifest, change: Callable[[TaskEntry], TaskEntry]
) -> None:
    before = plan(manifest).tasks
    after = plan(replace(manifest, tasks=(change(manifest.tasks[0]), manifest.tasks[1]))).tasks

    assert after[0].spec.key != before[0].spec.key
    assert after[1].spec.key == before[1].spec.key


def test_key_follows_backbone_and_method() -> None:
    keys = {
        task_key("a", TuneConfig(), "b"),
        task_key("x", TuneConfig(), "b"),
        task_key("a", TuneConfig(epochs=3), "b"),
        task_key("a", TuneConfig(), "x"),
        task_key("a", TuneConfig(), "b", method_version="x"),
    }

    assert len(keys) == 5
    assert all(len(key) == 64 for key in keys)


def test_keys_are_those_of_the_second_method() -> None:
    """Another key would tune every task of every store again."""
    search = SearchConfig(learning_rate=(0.01, 0.02), threshold=("auto", 0.98))
    config = TuneConfig(num_independent=5, threshold=0.95, epochs=7, start="published", seed=3)

    plain, searched = (
        task_key("a" * 64, TuneConfig(), "b" * 64),
        task_key("a" * 64, config, "b" * 64, search=search),
    )

    assert plain == "404f977f0e0273e01a76e8afcfa85d4d0fc70c0c39af521673e81f885094d795"
    assert searched == "62a7a8ffe66b0f1b826ba2b661be1c80a1cf159fbc7a84f732de726318e90cfc"


@pytest.mark.parametrize(
    ("kind", "search", "is_followed"),
    [
        ("ship", None, False),
        ("ship", SearchConfig(kind=("probe", "ship")), False),
        ("ship", SearchConfig(kind=("ship", "lora")), True),
        ("ship+lora", None, True),
    ],
)
def test_key_follows_the_rate_of_low_ranks_only_where_there_are_some(
    kind: Kind, search: SearchConfig | None, is_followed: bool
) -> None:
    keys = {
        task_key("a", TuneConfig(kind=kind, low_rank_rate_scale=scale), "b", search=search)
        for scale in (0.05, 0.2)
    }

    assert (len(keys) == 2) == is_followed


def test_key_does_not_follow_the_order_of_settings() -> None:
    config = TuneConfig.from_dict(dict(reversed(TuneConfig().to_dict().items())))

    assert task_key("a" * 64, config, "b" * 64) == task_key("a" * 64, TuneConfig(), "b" * 64)


def test_tags_do_not_change_the_key(manifest: Manifest) -> None:
    retagged = replace(manifest, tasks=(replace(manifest.tasks[0], tags={}), manifest.tasks[1]))

    assert plan(retagged).tasks[0].spec.key == plan(manifest).tasks[0].spec.key


def test_floors_are_carried_do_not_change_the_key_and_name_classes_of_the_data(manifest: Manifest) -> None:
    task, *others = manifest.tasks
    named = replace(task, floors=Floors(recall={"ok": 0.9}))
    spec = plan(replace(manifest, tasks=(named, *others))).tasks[0].spec
    assert spec.floors == Floors(recall={"ok": 0.9})
    assert spec.key == plan(manifest).tasks[0].spec.key
    wrong = replace(task, floors=Floors(recall={"okay": 0.9}))
    [refused] = plan(replace(manifest, tasks=(wrong, *others)), keep_going=True).refused
    assert refused.name == task.name
    assert "gate.recall: okay: expected classes of the data: " in refused.reasons[0]


def test_thumbnails_are_carried_and_do_not_change_the_key(manifest: Manifest) -> None:
    secret = replace(manifest, tasks=(replace(manifest.tasks[0], thumbnails=False), manifest.tasks[1]))

    specs, keys = [[task.spec for task in plan(one).tasks] for one in (secret, manifest)]
    assert [spec.thumbnails for spec in specs] == [False, True]
    assert [spec.key for spec in specs] == [spec.key for spec in keys]


def test_estimates_follow_from_shapes_and_speed(manifest: Manifest) -> None:
    task = plan(manifest, speed=Speed(images_per_s=40.0, num_runs=1)).tasks[0]

    # 8 levels of 5, 10 shared and 2 classes of width 16, 2 biases and 12 gates.
    assert task.estimate_bytes == 4 * ((40 + 10 + 2) * 16 + 2 + 12)
    assert task.estimate_s == 16 * 10 / 40.0
    assert plan(manifest, speed=Speed(images_per_s=40.0, num_runs=1)).estimate_s == 8.0


def test_min_steps_count_in_the_estimate(manifest: Manifest) -> None:
    entry = replace(manifest.tasks[0], config=replace(manifest.tasks[0].config, min_steps=100))

    # 16 images are 2 steps an epoch: 50 epochs.
    assert (
        plan(replace(manifest, tasks=(entry,)), speed=Speed(images_per_s=40.0, num_runs=1)).estimate_s
        == 16 * 50 / 40.0
    )


@pytest.mark.parametrize(
    ("settings", "num_numbers"),
    [
        ({"num_attribute": 10, "num_prototypes": 12}, (40 + 10 + 20 + 12 + 2) * 16 + 2 + 12),
        ({"kind": "probe"}, 2 * 16 + 2 + 12),
        ({"kind": "probe", "head": "layers"}, 7 * 2 * 16 + 2 + 12),
        ({"kind": "lora", "rank": 4, "low_rank_on": "qkv+fc1"}, (12 * 4 * (4 + 5) + 2) * 16 + 2 + 12),
        ({"kind": "ship+lora"}, (40 + 10 + 12 * 8 * 4 + 2) * 16 + 2 + 12),
    ],
)
def test_bytes_follow_from_the_parts(
    manifest: Manifest, settings: dict[str, object], num_numbers: int
) -> None:
    entry = replace(manifest.tasks[0], config=replace(manifest.tasks[0].config, **settings))

    assert plan(replace(manifest, tasks=(entry,))).tasks[0].estimate_bytes == 4 * num_numbers


def test_the_fallback_counts_in_the_estimate(manifest: Manifest) -> None:
    def estimate(**settings: object) -> float | None:
        entry = replace(manifest.tasks[0], config=replace(manifest.tasks[0].config, **settings))
        return plan(replace(manifest, tasks=(entry,)), speed=Speed(images_per_s=40.0, num_runs=1)).estimate_s

    assert estimate(fallback=True) == 2.5 * 16 * 10 / 40.0, "half the epochs on three folds"
    assert estimate(fallback=True, kind="probe") == 0.0, "no step"


def test_time_is_unknown_without_a_speed(manifest: Manifest) -> None:
    assert plan(manifest).tasks[0].estimate_s is None
    assert plan(manifest).estimate_s is None


def test_every_tasks_data_problems_are_listed(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "caps" / "empty").mkdir()
    missing = TaskEntry(name="gone", source=DataSource(path=str(tmp_path / "gone.csv")), config=TuneConfig())

    with pytest.raises(ManifestError) as caught:
        plan(replace(manifest, tasks=(*manifest.tasks, missing)))
    assert caught.value.problems == (
        f"task caps: {tmp_path}/caps/empty: class 'empty' has no image",
        f"task gone: {tmp_path}/gone.csv: no such file or folder",
    )


def test_a_preset_fits_settings_to_the_data(manifest: Manifest) -> None:
    entry = replace(manifest.tasks[0], preset="balanced", pinned=frozenset({"batch_size", "augment"}))
    [bare] = plan(
        replace(manifest, tasks=manifest.tasks[:1]), speed=Speed(images_per_s=100.0, num_runs=1)
    ).tasks
    [task] = plan(replace(manifest, tasks=(entry,)), speed=Speed(images_per_s=100.0, num_runs=1)).tasks

    # 16 images in batches of 8, for 200 steps; eight images a class are few.
    assert (task.spec.config.epochs, task.spec.config.num_independent) == (100, 5)
    assert task.spec.search is not None
    assert task.spec.search.kind == ("ship", "lora")
    assert task.spec.search.augment == ()
    assert task.spec.key != task_key(task.spec.data_fingerprint, task.spec.config, "f" * 64)
    assert bare.estimate_s is not None
    assert task.estimate_s is not None
    # Three candidates, for the head may turn out another, on three folds, and the tuning itself.
    assert task.estimate_s == pytest.approx((1 + 3 * (3 / 4 + 2 / 2)) * 16 * 100 / 100.0)


def test_terms_are_carried_and_do_not_change_the_key(manifest: Manifest) -> None:
    terms = Terms(priority=3, deadline_s=5.0, budget_s=100.0)
    spec = plan(with_terms(manifest, caps=terms)).tasks[0].spec

    assert spec.terms == terms
    assert spec.key == plan(manifest).tasks[0].spec.key
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_task_over_its_budget_is_refused_alone(manifest: Manifest) -> None:
    # 16 images, 10 epochs, 1 image a second: 160 s.
    speed = Speed(images_per_s=1.0, num_runs=1)
    asked = with_terms(manifest, caps=Terms(budget_s=159.0), bolts=Terms(budget_s=160.0))

    made = plan(asked, speed=speed)
    assert [task.spec.name for task in made.tasks] == ["bolts"]
    (refused,) = made.refused
    assert (refused.name, refused.tags) == ("caps", {"site": "ulm"})
    assert refused.reasons[0].startswith(
        "over its budget: tuning takes about 160 s of one device, the budget is 159 s"
    )


def test_a_budget_that_nothing_is_known_about_is_not_checked_and_said_so(manifest: Manifest) -> None:
    made = plan(with_terms(manifest, caps=Terms(budget_s=1.0)))

    assert (len(made.to_tune), made.refused) == (2, ())
    assert made.warnings == (
        "budgets of 1 tasks are not checked: the speed is not known before a first task is tuned",
    )


def test_a_class_without_held_out_images_is_warned_of(manifest: Manifest) -> None:
    assert plan(manifest).warnings == ()
    for image in sorted(Path(manifest.tasks[0].source.path, "bad").iterdir())[1:]:
        image.unlink()
    made = plan(manifest)
    assert made.warnings == (
        "task caps: no held-out image of 'bad': by those of one class no version passes the gate; add some",
    )
    published = frozenset({(task.spec.name, task.spec.key) for task in made.tasks})
    assert plan(manifest, published=published).warnings == ()


def test_copies_within_a_split_are_warned_of_in_both(manifest: Manifest) -> None:
    folder = Path(manifest.tasks[0].source.path)
    for label in ("ok", "bad"):
        for split, numbers in (("train", range(5)), ("val", (5, 6)), ("test", (7, 8, 9))):
            (folder / split / label).mkdir(parents=True)
            for number in numbers:
                (folder / label / f"{number}.png").rename(folder / split / label / f"{number}.png")
        (folder / label).rmdir()
    assert plan(manifest).warnings == ()
    for path, num_copies in (("train/ok/0.png", 1), ("val/ok/5.png", 2), ("test/bad/7.png", 3)):
        for copy in range(num_copies):
            shutil.copy(folder / path, (folder / path).with_stem(f"again-{copy}"))
    assert plan(manifest).warnings == (
        "task caps: 1 training images are copies of another",
        "task caps: 3 held-out images are copies of another: what a decision rule promises counts each "
        "picture once",
    )
    # Without a test split, the validation images are what is measured on.
    shutil.rmtree(folder / "test")
    assert "task caps: 2 held-out images are copies" in "".join(plan(manifest).warnings)


def test_what_is_published_costs_nothing_whatever_its_budget(manifest: Manifest) -> None:
    asked = with_terms(manifest, caps=Terms(budget_s=1.0))
    key = plan(asked).tasks[0].spec.key

    made = plan(asked, published={("caps", key)}, speed=Speed(images_per_s=0.1, num_runs=1))
    assert [task.spec.name for task in made.to_reuse] == ["caps"]
    assert made.refused == ()


def test_broken_data_is_refused_alone_if_asked(manifest: Manifest, tmp_path: Path) -> None:
    missing = TaskEntry(name="gone", source=DataSource(path=str(tmp_path / "gone.csv")), config=TuneConfig())
    earlier = RefusedTask(name="worse", reasons=("unknown key",))
    asked = replace(manifest, tasks=(*manifest.tasks, missing), refused=(earlier,))

    made = plan(asked, keep_going=True)
    assert [task.spec.name for task in made.tasks] == ["caps", "bolts"]
    assert made.refused == (
        earlier,
        RefusedTask(name="gone", reasons=(f"{tmp_path}/gone.csv: no such file or folder",)),
    )


def test_more_than_was_meant(manifest: Manifest) -> None:
    made = plan(manifest)

    assert made.find_fan_out(2) is None
    problem = made.find_fan_out(1)
    assert problem is not None
    assert problem.startswith("2 tasks would be tuned, the limit is 1; to tune them all, give --max-tasks 2")
    published = {(task.spec.name, task.spec.key) for task in made.tasks}
    assert plan(manifest, published=published).find_fan_out(1) is None


def test_progress(manifest: Manifest) -> None:
    calls: list[tuple[int, int]] = []

    plan(manifest, on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
