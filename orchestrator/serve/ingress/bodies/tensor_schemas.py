"""Types of the JSON bodies of the Open Inference Protocol; see ``schemas``."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field

from orchestrator.serve.ingress.bodies.schemas import StrictBody, TaskName

__all__ = [
    "LiveReply",
    "ModelReadyReply",
    "ModelReply",
    "ReadyReply",
    "ServerReply",
    "TensorBody",
    "TensorReply",
]

_Id = Annotated[str, Field(max_length=128, examples=["request 7"])]
_Name = Annotated[str, Field(examples=["label"])]
_Datatype = Annotated[str, Field(examples=["BYTES"])]
_Shape = Annotated[list[int], Field(examples=[[1]])]
_Texts = dict[str, str]


class ServerReply(StrictBody):
    """Name and version of the server."""

    name: Annotated[str, Field(examples=["ship"])]
    version: Annotated[str, Field(examples=["0.1.0"])]
    extensions: Annotated[list[str], Field(examples=[[]])]


class LiveReply(StrictBody):
    """Sign of life of the process."""

    live: Literal[True]


class ReadyReply(StrictBody):
    """Readiness of the endpoint."""

    ready: Literal[True]


class ModelReadyReply(StrictBody):
    """Readiness of a task."""

    name: TaskName
    ready: Literal[True]


class TensorInfo(StrictBody):
    """Name, type and shape of a tensor; -1 stands for any size."""

    name: _Name
    datatype: _Datatype
    shape: _Shape


class InputTensorInfo(StrictBody):
    """Name, type and shape of the input tensor, and the alternative to it."""

    name: Annotated[str, Field(examples=["image"])]
    datatype: Annotated[str, Field(examples=["UINT8"])]
    shape: Annotated[list[int], Field(examples=[[-1, 3, 96, 96]])]
    parameters: Annotated[
        _Texts, Field(examples=[{"content": "RGB pixels", "alternative": "or BYTES [-1]: ..."}])
    ]


class ModelReply(StrictBody):
    """Tensors of a task."""

    name: TaskName
    versions: Annotated[list[str], Field(examples=[["2", "4"]])]
    platform: Annotated[str, Field(examples=["ship_prompt"])]
    inputs: list[InputTensorInfo]
    outputs: list[TensorInfo]


class OutputTensor(StrictBody):
    """Output tensor, its values in row-major order."""

    name: _Name
    datatype: _Datatype
    shape: _Shape
    data: Annotated[list[Any], Field(examples=[["bad"]])]


class TensorReply(StrictBody):
    """Predictions for all images of a request."""

    id: NotRequired[_Id]
    model_name: TaskName
    model_version: Annotated[str, Field(examples=["2"])]
    parameters: Annotated[
        _Texts,
        Field(
            examples=[{"digest": "5f3a0c9e8b7d6a5f4e3d2c1b0a9f8e7d", "rule": "0c9e8b7d6a5f"}],
            description="`digest` of the artifact; `rule`, the start of the decision rule's digest, where it "
            "is not the artifact's own.",
        ),
    ]
    outputs: list[OutputTensor]


class InputTensor(StrictBody):
    """Images as pixels or as files.

    `UINT8` `[N,3,H,W]` or `[3,H,W]`: RGB pixels of the backbone's input size, flat or nested. `BYTES` `[N]`:
    base64 of image files.
    """

    name: Literal["image"]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(examples=[[1]])]
    datatype: Annotated[Literal["UINT8", "BYTES"], Field(examples=["BYTES"])]
    parameters: NotRequired[dict[str, Any]]
    data: Annotated[list[Any], Field(examples=[["iVBORw0KGgo="]])]


class WantedOutput(StrictBody):
    """Output tensor that the reply should have."""

    name: Annotated[
        Literal["probabilities", "label", "labels", "decision", "decision_because"],
        Field(examples=["label"]),
    ]
    parameters: NotRequired[dict[str, Any]]


class TensorBody(StrictBody):
    """Inference request with one input tensor."""

    id: NotRequired[_Id]
    parameters: NotRequired[dict[str, Any]]
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: NotRequired[Annotated[list[WantedOutput], Field(min_length=1)]]
