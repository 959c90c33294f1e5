"""The published schema is the one that the code makes, and it takes what the reader takes."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from orchestrator.errors import ManifestError
from orchestrator.manifest.json_schema import manifest_json_schema
from orchestrator.manifest.load import load_manifest
from ship.settings.config import TuneConfig

ROOT = Path(__file__).parents[4]
EVERYTHING = """
version: 1
backbone: bundled
store: s3://models/ship
workers: 4
max_tasks: 2000
preset: balanced
search: {learning_rate: [0.005, 0.02], threshold: [auto, 0.97], num_candidates: 8}
checks: {blurred: 0.02, images_a_class: 20, imbalance: 10}
defaults: {epochs: 30, threshold: auto, priority: 1, budget: 2h, tags: {plant: main}}
tasks:
  - name: bottle-caps
    data: lines/caps
    tags: {site: ulm, line: 3, urgent: true}
    config: {num_independent: 5, learning_rate: 1}
    search: false
    preset: quick
    priority: 5
    deadline: "2026-11-30T06:00:00+01:00"
    budget: 1h30m
  - {name: bolts, data: {path: lines/bolts, format: imagefolder, val_fraction: 0.1, split_seed: 3}}
tasks_from:
  - lines/more
  - {path: lines/other/*, tags: {site: jena}, config: {epochs: 3}, priority: -1}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = manifest_json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_what_is_published_is_what_the_code_makes() -> None:
    published = json.loads((ROOT / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))

    assert published == manifest_json_schema(), "run `ship schema > docs/manifest.schema.json`"


@pytest.mark.parametrize(
    "text",
    [
        EVERYTHING,
        "tasks: [{name: a, data: lines/caps}]",
        "tasks_from: lines/more",
        "tasks_from: {path: lines/more}",
    ],
)
def test_what_the_reader_takes_is_valid(text: str, validator: Draft202012Validator, tmp_path: Path) -> None:
    for name in ("caps", "bolts", "more/a", "more/b", "other/c"):
        (tmp_path / "lines" / name).mkdir(parents=True)
    (tmp_path / "manifest.yaml").write_text(text)

    load_manifest(str(tmp_path / "manifest.yaml"))
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


def test_the_manifests_of_the_documents_are_valid(validator: Draft202012Validator) -> None:
    blocks = [
        yaml.safe_load(block)
        for name in ("README.md", "docs/tuning.md")
        for block in re.findall(r"```yaml\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(blocks) >= 5

    for block in blocks:
        # An editor takes a date-time for text, YAML 1.1 does not.
        value = json.loads(json.dumps(block, default=lambda moment: moment.isoformat()))
        assert [error.message for error in validator.iter_errors(value)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"backbon": "bundled"},
        {"version": 2},
        {"workers": 0},
        {"max_tasks": "many"},
        {"preset": "fast"},
        {"defaults": {"epoch": 3}},
        {"defaults": {"epochs": "ten"}},
        {"defaults": {"threshold": "high"}},
        {"defaults": {"attention": "decoupled"}},
        {"search": {"learning_rates": [1]}},
        {"search": True},
        {"checks": {"blured": 0.1}},
        {"tasks": [{"name": "a"}]},
        {"tasks": [{"name": "A", "data": "lines"}]},
        {"tasks": [{"name": "a", "data": "lines", "dta": 1}]},
        {"tasks": [{"name": "a", "data": {"path": "lines", "formt": "csv"}}]},
        {"tasks": [{"name": "a", "data": {"format": "csv"}}]},
        {"tasks": [{"name": "a", "data": "lines", "tags": {"site": [1]}}]},
        {"tasks": [{"name": "a", "data": "lines", "config": {"num_indep": 5}}]},
        {"tasks": [{"name": "a", "data": "lines", "priority": "high"}]},
        {"tasks": [{"name": "a", "data": "lines", "budget": "30"}]},
        {"tasks": [{"name": "a", "data": "lines", "budget": ""}]},
        {"tasks": [{"name": "a", "data": "lines", "deadline": 7}]},
        {"tasks_from": {"tags": {"site": "ulm"}}},
        {"tasks_from": [{"path": "lines", "tag": {}}]},
        {"tasks_from": 5},
    ],
)
def test_what_the_reader_refuses_is_not_valid(
    change: dict[str, Any], validator: Draft202012Validator, tmp_path: Path
) -> None:
    (tmp_path / "lines" / "a").mkdir(parents=True)
    manifest = {"tasks": [{"name": "a", "data": "lines"}], **change}
    (tmp_path / "manifest.yaml").write_text(json.dumps(manifest))

    with pytest.raises(ManifestError):
        load_manifest(str(tmp_path / "manifest.yaml"))
    assert not validator.is_valid(manifest)


def test_every_setting_is_there_with_what_it_means() -> None:
    schema = manifest_json_schema()

    settings = schema["$defs"]["Settings"]["properties"]
    assert list(settings) == [field.name for field in fields(TuneConfig)]
    assert settings["patience"]["default"] == 0
    assert settings["patience"]["description"].startswith(
        "Epochs without a lower validation loss after which"
    )
    assert settings["patience"]["description"].endswith("The prompt is still that of the last epoch.")
    # A key without a type would let everything pass.
    for place in (schema, schema["$defs"]["Task"], schema["$defs"]["Folder"]["anyOf"][1]):
        for name, values in place["properties"].items():
            assert values.keys() & {"type", "anyOf", "$ref", "const"}, name
            assert values["description"], name
