"""Arguments of the endpoint as a Ray Serve application, as they come from a file or a command line."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from orchestrator.errors import ServeError
from orchestrator.serve.keep_rules import read_rules
from orchestrator.serve.launch.placement import Placement
from orchestrator.serve.options import EngineOptions, Inside, Limits, ServeOptions
from orchestrator.serve.scale import Scale
from orchestrator.settings import Settings
from ship.backbone_spec import BUNDLED, absolute
from ship.redaction import redact_url
from ship.settings.view import MAX_PIXELS

__all__ = ["Arguments"]


class Arguments(BaseModel):
    """Arguments of ``orchestrator.serve.launch.app:build``.

    A nested one is given as a mapping, or by its path: ``limits.timeout_s=10``.

    Attributes:
        store: URL or path of the store; None for ``SHIP_STORE``. Its secrets come from the environment.
        tracking_uri: MLflow's; None for ``MLFLOW_TRACKING_URI``.
        home: Folder for everything local on each node; None for ``SHIP_HOME``.
        cache: Folder of each node's cache; None for ``SHIP_CACHE``.
        backbone: Backbone that serves, see ``ship.backbone_spec``; a path is there on each node. Several in
            a list, or with commas between them.
        image_size: Height and width of the backbone's input in pixels; None for its own.
        auth: Whether a request needs a token.
        engines: Number of engines of each backbone, or ``auto:LEAST-MOST``.
        ingress: Number of ingresses, or ``auto:LEAST-MOST``; ``inside`` for one in each engine's process.
        cpus_per_engine: CPUs that each engine reserves, and its most threads.
        gpus_per_engine: GPUs that each engine reserves.
        engine: Options of each engine.
        limits: Limits on requests.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    store: str | None = None
    tracking_uri: str | None = None
    home: str | None = None
    cache: str | None = None
    backbone: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (BUNDLED,)
    image_size: Annotated[int, Field(ge=1)] | None = None
    auth: bool = True
    engines: Scale = Scale()
    ingress: Scale | Inside = Scale()
    cpus_per_engine: Annotated[float, Field(ge=0)] = 1.0
    gpus_per_engine: Annotated[float, Field(ge=0)] = 0.0
    engine: EngineOptions = EngineOptions()
    limits: Limits = Limits()

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, values: Any) -> Any:
        """Take ``limits.timeout_s`` of a command line for what it means."""
        if not isinstance(values, Mapping):
            return values
        nested: dict[str, Any] = {key: value for key, value in values.items() if "." not in str(key)}
        for key, value in values.items():
            group, dot, name = str(key).partition(".")
            # What is no mapping is told as what it is.
            if dot and isinstance(nested.setdefault(group, {}), Mapping):
                nested[group] = {**nested[group], name: value}
        return nested

    @field_validator("backbone", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @field_validator("engines", "ingress", mode="before")
    @classmethod
    def _read_scale(cls, value: Any, info: ValidationInfo) -> Scale | Inside:
        if value == "inside" and info.field_name == "ingress":
            return "inside"
        try:
            scale = value if isinstance(value, Scale) else Scale.read(str(value))
        except ServeError as error:
            raise ValueError(str(error)) from None
        if scale.is_open:
            raise ValueError("auto: expected bounds, such as auto:1-8, where the cluster is not known yet")
        return scale

    @model_validator(mode="after")
    def _check_inside(self) -> Self:
        if self.ingress == "inside" and len(self.backbone) > 1:
            raise ValueError(f"ingress inside: expected one backbone, found {len(self.backbone)}")
        return self

    @field_validator("limits")
    @classmethod
    def _check_keep(cls, value: Limits) -> Limits:
        try:
            read_rules(value.keep)
        except ServeError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("store", "tracking_uri")
    @classmethod
    def _without_secrets(cls, value: str | None) -> str | None:
        """Arguments are shown by dashboards and kept in files."""
        if value is not None and redact_url(value) != value:
            raise ValueError(
                "it has a user, a password or a query: set SHIP_STORE or MLFLOW_TRACKING_URI on nodes instead"
            )
        return value

    def settings(self, env: Mapping[str, str]) -> Settings:
        """Settings of the environment, with these arguments in place of what they name."""
        given = {"MLFLOW_TRACKING_URI": self.tracking_uri, "SHIP_CACHE": self.cache}
        known = {name: value for name, value in given.items() if value is not None}
        # Another process opens it, in a folder of its own.
        store = self.store if self.store is None or "://" in self.store else os.path.abspath(self.store)
        return Settings.from_env({**env, **known}, home=self.home, store=store)

    def options(self, settings: Settings) -> ServeOptions:
        """Options of the endpoint. Where it listens is Ray Serve's to say."""
        limits = self.limits
        # Where they name no limit, pictures may be as large as in tuning.
        if limits.max_pixels == MAX_PIXELS:
            limits = replace(limits, max_pixels=settings.max_pixels)
        return ServeOptions(
            auth=self.auth,
            backbones=tuple(map(absolute, self.backbone)),
            image_size=self.image_size,
            engines=self.engines,
            ingresses=self.ingress,
            engine=self.engine,
            limits=limits,
        )

    def placement(self) -> Placement:
        """Numbers of replicas, and resources of each engine."""
        return Placement(
            engines=self.engines,
            ingresses=None if self.ingress == "inside" else self.ingress,
            cpus=self.cpus_per_engine,
            gpus=self.gpus_per_engine,
        )
