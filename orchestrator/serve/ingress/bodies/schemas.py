"""Types of the JSON bodies below /v1: mypy checks the routes against them, the OpenAPI document shows them.

Nothing validates with them at run time. Examples of the document are put together from those of the fields.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from orchestrator.names import TASK_NAME_PATTERN
from orchestrator.serve.engine_api import Because
from orchestrator.serve.ingress.headers import KEY_PATTERN, MAX_VERSION
from orchestrator.serve.ingress.problems import ProblemReply

__all__ = [
    "RULE_CHARS",
    "BackboneBody",
    "BatchBody",
    "BatchReply",
    "ExplanationReply",
    "HealthReply",
    "ItemReply",
    "PredictionReply",
    "ReadinessReply",
    "ShadowBody",
    "StrictBody",
    "TaskListReply",
    "TaskName",
    "TaskReply",
]

# Characters of a decision rule's digest in replies.
RULE_CHARS = 12
_EXAMPLE = "5f3a0c9e8b7d6a5f4e3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f6e5d4c3b2a19"
TaskName = Annotated[str, Field(pattern=f"^{TASK_NAME_PATTERN}$", examples=["bolts"])]
Digest = Annotated[
    str, Field(pattern="^[0-9a-f]{64}$", examples=[_EXAMPLE], description="SHA-256 of the prompt's artifact.")
]
_Version = Annotated[int, Field(ge=0, le=MAX_VERSION, examples=[2])]
_Share = Annotated[float, Field(ge=0, le=1, examples=[0.25])]
_Map = list[list[_Share]]
_Label = Annotated[str, Field(examples=["bad"])]
_Precision = Annotated[
    str, Field(examples=["bfloat16"], description="Precision of the engine's arithmetic: name of a dtype.")
]
_ImageName = Annotated[
    str, Field(examples=["cap"], description="Name of the form's part that holds the image.")
]
_Key = Annotated[
    str, Field(pattern=f"^{KEY_PATTERN}$", examples=["line 7"], description="See header Ship-Key.")
]


@with_config(ConfigDict(extra="forbid"))
class StrictBody(TypedDict):
    """JSON object without any other fields."""


class PredictionReply(StrictBody):
    """Prediction of one task for one image."""

    task: TaskName
    version: _Version
    digest: Digest
    rule: Annotated[
        str | None,
        Field(
            pattern=f"^[0-9a-f]{{{RULE_CHARS}}}$",
            examples=[_EXAMPLE[:RULE_CHARS]],
            description="Start of the decision rule's digest; null for the artifact's own rule.",
        ),
    ]
    backbone: NotRequired[
        Annotated[
            str,
            Field(
                examples=[_EXAMPLE[::-1]],
                description="Fingerprint of the backbone, at an endpoint of several.",
            ),
        ]
    ]
    label: Annotated[_Label, Field(description="Most probable label.")]
    decision: Annotated[
        str,
        Field(
            examples=["unsure"],
            description="Label that the decision rule answers, or `unsure` with a `decision_because`.",
        ),
    ]
    decision_because: NotRequired[
        Annotated[
            Because,
            Field(
                examples=["several"],
                description="Reason of an `unsure`: `far` from all training images, `several` classes with a "
                "promised recall are possible, the `confidence` is too low, or an error would `cost` more "
                "than a look.",
            ),
        ]
    ]
    probabilities: Annotated[
        dict[str, _Share],
        Field(
            examples=[{"bad": 0.75, "good": 0.25}],
            description="Calibrated, by label, in descending order; they sum to 1.",
        ),
    ]


class ItemReply(PredictionReply):
    """Prediction for one item of a batch."""

    image: _ImageName


class ItemErrorReply(StrictBody):
    """Problem of one item of a batch."""

    image: _ImageName
    task: Annotated[str, Field(examples=["bolts"])]
    error: ProblemReply


class BatchReply(StrictBody):
    """One prediction or problem for each item of a batch, in the order of the request."""

    items: list[ItemReply | ItemErrorReply]


class BatchItemBody(StrictBody):
    """One item of a batch: a task, and the image to ask it about."""

    image: _ImageName
    task: TaskName
    version: NotRequired[_Version]
    key: NotRequired[_Key]


class BatchBody(StrictBody):
    """Part `request` of a batch."""

    items: Annotated[list[BatchItemBody], Field(min_length=1)]


class ExplanationReply(StrictBody):
    """Attention of CLS to patches in the last block, averaged over heads: with the prompt, and without it."""

    task: TaskName
    version: _Version
    digest: Digest
    layer: Literal["last"]
    attention: Annotated[
        _Map,
        Field(description="Share of each patch, row by row, with the prompt; laid over the task's view."),
    ]
    bare_attention: Annotated[_Map, Field(description="Share of each patch on the bare backbone.")]
    entropy: Annotated[_Share, Field(description="Entropy of `attention`: 0 on one patch, 1 if uniform.")]
    bare_entropy: Annotated[_Share, Field(description="Entropy of `bare_attention`.")]
    distance: Annotated[_Share, Field(description="Share of the attention that the prompt moves elsewhere.")]


class BackboneBody(StrictBody):
    """Backbone that the endpoint runs."""

    name: Annotated[str, Field(examples=["bundled"])]
    fingerprint: Annotated[str, Field(examples=[_EXAMPLE[::-1]])]
    image_size: Annotated[list[int], Field(examples=[[96, 96]])]


class CanaryBody(StrictBody):
    """Version that takes a share of the requests."""

    version: _Version
    share: Annotated[float, Field(examples=[0.05])]


class ShadowBody(StrictBody):
    """Version that answers the same images in the background, compared with the champion in this process."""

    version: _Version
    champion: Annotated[int | None, Field(examples=[2], description="Version that it was compared with.")]
    compared: Annotated[int, Field(examples=[80], description="Images that both versions answered.")]
    agreed: Annotated[int, Field(examples=[78], description="Images with the same label from both versions.")]
    mean_difference: Annotated[
        float | None,
        Field(
            examples=[0.01],
            description="Mean absolute difference in the probability of the champion's label.",
        ),
    ]


class _TaskState(StrictBody):
    task: TaskName
    version: Annotated[int | None, Field(examples=[2], description="Version that is served.")]
    digest: Annotated[str | None, Field(examples=[_EXAMPLE], description="Digest of this version.")]
    wanted_version: Annotated[_Version, Field(description="Version that the registry names.")]
    wanted_digest: Annotated[str, Field(examples=[_EXAMPLE], description="Digest of this version.")]
    rule: Annotated[
        str | None,
        Field(
            examples=[_EXAMPLE[::-1]],
            description="Digest of the decision rule that is served; null for the artifact's own.",
        ),
    ]
    wanted_rule: Annotated[
        str | None,
        Field(
            examples=[_EXAMPLE[::-1]],
            description="Digest of the decision rule that the catalog names; null for the artifact's own.",
        ),
    ]
    problem: Annotated[
        str | None,
        Field(
            examples=["prompt.json: it was changed"],
            description="Why the wanted version or its rule, its canary or its shadow could not be loaded.",
        ),
    ]
    canary: CanaryBody | None
    others: Annotated[list[_Version], Field(description="Versions that answer requests that name them.")]


class TaskRowBody(_TaskState):
    """Task in a list."""

    backbone: Annotated[
        str, Field(examples=[_EXAMPLE[::-1]], description="Fingerprint of the version's backbone.")
    ]

    shadow_version: Annotated[int | None, Field(examples=[5], description="Version that runs as a shadow.")]


class TaskListReply(StrictBody):
    """Tasks that the token has access to."""

    backbone: Annotated[BackboneBody, Field(description="The first of `backbones`.")]
    backbones: Annotated[list[BackboneBody], Field(description="All that this endpoint runs.")]
    tasks: list[TaskRowBody]
    next_cursor: Annotated[
        str | None,
        Field(examples=["bolts"], description="Cursor of the next page; null on the last."),
    ]


class ViewBody(StrictBody):
    """Part of each picture that a task looks at, and its tiles."""

    crop: Annotated[
        list[float] | None,
        Field(
            examples=[[0.1, 0.2, 0.5, 0.5]],
            description="x, y, width and height in pixels, or in shares up to 1.",
        ),
    ]
    tiles: Annotated[str, Field(examples=["2x2"])]
    tile_overlap: Annotated[float, Field(examples=[0.1], description="Share of a tile's side.")]
    fit: Annotated[Literal["squash", "pad", "crop"], Field(examples=["squash"])]
    bits: NotRequired[
        Annotated[
            Literal[8, 10, 12, 14, 16],
            Field(examples=[12], description="Bits of a sample that the camera fills; left out for `auto`."),
        ]
    ]
    decode: NotRequired[
        Annotated[
            Literal["reduced"],
            Field(examples=["reduced"], description="JPEGs are decoded smaller; left out for `full`."),
        ]
    ]


class TaskReply(_TaskState):
    """Task with its labels."""

    backbone: BackboneBody
    shadow: ShadowBody | None
    view: Annotated[ViewBody | None, Field(description="View of the version that is served.")]
    labels: list[_Label]


class HealthReply(StrictBody):
    """Sign of life of the process."""

    status: Literal["ok"]


class ReadinessReply(StrictBody):
    """State of an endpoint that answers requests."""

    status: Literal["ready"]
    ready: Literal[True]
    detail: Annotated[str, Field(examples=["1 tasks are served"])]
    num_served: int
    num_problems: int
    num_loading: Annotated[int, Field(description="Prompts that are being loaded.")]
    catalog_age_s: Annotated[
        float | None,
        Field(examples=[0.4], description="Seconds since the catalog was last known to be current."),
    ]
    num_lost: Annotated[int, Field(description="Tasks that left the catalog and have not come back.")]
    num_broken: Annotated[
        dict[str, int],
        Field(
            examples=[{"catalog": 0}],
            description="What is broken and concerns nothing else: entries of the `catalog`, tasks of the "
            "`registry`, `tokens`.",
        ),
    ]
    precision: _Precision
    last_look_s: Annotated[
        dict[str, float | None],
        Field(
            examples=[{"catalog": 0.4}],
            description="Seconds since the last look that succeeded: `catalog`, of an engine; `registry`, of "
            "the poller; `tokens`, of the ingress.",
        ),
    ]
