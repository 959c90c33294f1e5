"""Interface between ingress and engines: requests, replies and states as plain values.

While an endpoint is upgraded, ingresses and engines of two versions that follow each other ask each other, by
pickles of these values. So a version keeps all fields, classes and methods of the one before it, by name and
meaning; a new field has a plain default, for the values of the version before lack it; a new method or reason
of a refusal is not used before the version after.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import ServeError
from orchestrator.store.documents.catalog import Canary
from ship.backbone_info import BackboneInfo
from ship.settings.view import DEFAULT_VIEW, View

__all__ = [
    "ALL_TASKS",
    "Answer",
    "Ask",
    "Because",
    "Call",
    "CallReply",
    "Engine",
    "EngineBusyError",
    "EngineUnavailableError",
    "Explanation",
    "FirstLook",
    "Image",
    "Readiness",
    "Refusal",
    "RefusalReason",
    "ResidencyStats",
    "ServingState",
    "TaskPage",
]

# uint8, 3,H,W of the backbone's input size, or T,3,H,W of a picture in T tiles.
Image = NDArray[np.uint8]

# See ``ship.decision.rule.Decision``.
Because = Literal["far", "several", "confidence", "cost"]
RefusalReason = Literal[
    "unknown_task",
    "no_champion",
    "retired",
    "other_version",
    "other_view",
    "other_backbone",
    "no_key",
    "not_loaded",
    "not_ready",
    "busy",
    "late",
    "failed",
    "unavailable",
]


class EngineBusyError(ServeError):
    """As many requests wait for an engine as may wait."""


class EngineUnavailableError(ServeError):
    """No engine answered: it died twice over, or took too long."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question about one image.

    Attributes:
        task: A valid name, which need not exist.
        version: None for whichever is served.
        key: Asks with one key get the same of two versions while a canary runs.
        image: Index of the image, among those that come with it.
        view: View that the image was decoded by.
        is_background: No client waits: it waits for no prompt, and no champion gives way to it.
        backbone: Fingerprint of the one that the image was decoded for, which is asked; empty for the first.
        sent_from: Backbone whose engine named this one; None if the ask did not come from there.
        stays: The engine that this one named had no answer: the version in memory, if any, shall answer.
        trace: W3C's ``traceparent`` of the span that it is asked in; None if it is not traced.
    """

    task: str
    version: int | None = None
    key: str | None = None
    image: int = 0
    view: View = DEFAULT_VIEW
    is_background: bool = False
    backbone: str = ""
    sent_from: str | None = None
    stays: bool = False
    trace: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The classification of one image by one task.

    Attributes:
        task: Name of the task.
        version: Version that answered.
        digest: Digest of its artifact.
        probabilities: Label and calibrated probability, the likeliest first; they sum to 1.
        decision: Label that the decision rule answers, or ``unsure``.
        because: Reason of an ``unsure``; None of a label.
        rule: Digest of the decision rule; None for the artifact's own.
        batch_rows: Rows of the forward pass that this one was in.
        batch_tasks: Different tasks among them.
        queue_s: Seconds that the row waited for its pass.
        forward_s: Seconds of the pass.
        shadow_version: Version to be asked the same and compared, once the reply is out; None for none.
        precision: Dtype of the pass.
        backbone: Fingerprint of the backbone; empty at an endpoint of one.
        distance: Distance of the picture from the training images; None where the artifact does not tell.
    """

    task: str
    version: int
    digest: str
    probabilities: tuple[tuple[str, float], ...]
    decision: str
    batch_rows: int
    batch_tasks: int
    because: Because | None = None
    rule: str | None = None
    queue_s: float = 0.0
    forward_s: float = 0.0
    shadow_version: int | None = None
    precision: str = "float32"
    backbone: str = ""
    distance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why one row has no answer. A value and not an exception: it concerns no other row of its batch.

    Attributes:
        reason: ``unknown_task`` (not registered), ``no_champion`` (registered, but no version serves unless
            a request names it), ``retired`` (out of service), ``other_version`` (that version is not served),
            ``other_view`` (the image was decoded by another view than that of the version to answer),
            ``other_backbone`` (the version to answer belongs to another engine of the endpoint), ``no_key``
            (a canary runs, and without a key there is no telling which of the two versions is to answer),
            ``not_loaded`` (in the catalog, but its prompt could not be loaded or is still under way),
            ``not_ready`` (no catalog was read yet), ``busy`` (too many wait, or too many of its task),
            ``late`` (its time was up before its turn), ``failed`` (the forward pass went wrong for it) or
            ``unavailable`` (no engine of its backbone answered).
        detail: For the client.
        wait_s: With ``busy``, seconds for which asking the task again is in vain; 0 if that is not known.
        view: With ``other_view``, the view of the version to answer.
        is_lasting: With ``other_view`` and ``other_backbone``, whether the next question finds it, too.
        backbone: With ``other_backbone``, the fingerprint of the backbone whose engine is to be asked.
        is_loading: With ``not_loaded``, whether its load is under way.
    """

    reason: RefusalReason
    detail: str
    wait_s: float = 0.0
    view: View | None = None
    is_lasting: bool = False
    backbone: str | None = None
    is_loading: bool = False


@dataclass(frozen=True, kw_only=True)
class Call:
    """Questions of several requests that go to one engine together.

    Attributes:
        stacks: Images, uint8, one array for each shape: ``N,3,H,W``, or ``N,T,3,H,W`` of pictures in tiles.
            ``Ask.image`` counts through all of them.
        asks: Questions.
        patience_s: For each question, the seconds until its answer must be there.
        waits: Whether a question waits for its prompt to load; else it is refused with ``is_loading``.
    """

    stacks: tuple[Image, ...]
    asks: tuple[Ask, ...]
    patience_s: tuple[float, ...]
    waits: bool


@dataclass(frozen=True, kw_only=True)
class CallReply:
    """Replies to a call.

    Attributes:
        replies: To each of its questions.
        replica: Name of the engine that gave them.
        backbone: Fingerprint of its backbone; empty from an engine of version 0.1.0.
    """

    replies: tuple[Answer | Refusal, ...]
    replica: str
    backbone: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Attention of the last layer with and without a task's prompt, see ``ship.runtime.explain``.

    Attributes:
        task: Name of the task.
        version: Version of the prompt.
        digest: Digest of its artifact.
        prompted_TYX: Share of attention of each patch of each tile, float32; all tiles sum to 1.
        bare_TYX: The same of the bare backbone.
        entropy: Entropy of the first, 0 to 1.
        bare_entropy: Entropy of the second.
        distance: Share of attention that went elsewhere.
        precision: Dtype of the pass.
        backbone: See ``Answer``.
    """

    task: str
    version: int
    digest: str
    prompted_TYX: NDArray[np.float32]
    bare_TYX: NDArray[np.float32]
    entropy: float
    bare_entropy: float
    distance: float
    precision: str = "float32"
    backbone: str = ""


@dataclass(frozen=True, kw_only=True)
class ServingState:
    """Serving state of a task of the catalog.

    Attributes:
        task: Its name.
        version: Champion in memory; None if none is: it failed to load, or gave way to others
            and is loaded again at the next request.
        digest: Digest that is served; None if none is.
        labels: Labels of the version that is served.
        wanted_version: That of the catalog; not ``version`` while it is loaded, or once it was refused.
        wanted_digest: Digest that the catalog names.
        problem: Why the wanted version or its rule, or its canary or shadow, is not served, if it was tried.
        canary: The version that takes a share of the requests, if any.
        shadow_version: The version that is asked beside it, without its answers being sent, if any.
        others: Versions that can be asked for by number.
        view: View of the version that is served; None if none is.
        rule: Digest of the decision rule of the version that is served; None for its artifact's own.
        wanted_rule: Digest of the rule that the catalog names; None for the artifact's own.
        backbone: Of an engine, the wanted version's, if that is not its own; else see ``Answer``.
    """

    task: str
    version: int | None
    digest: str | None
    labels: tuple[str, ...]
    wanted_version: int
    wanted_digest: str
    problem: str | None
    canary: Canary | None = None
    shadow_version: int | None = None
    others: tuple[int, ...] = ()
    view: View | None = None
    rule: str | None = None
    wanted_rule: str | None = None
    backbone: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskPage:
    """Part of the list of all tasks, which is in the order of their names.

    Attributes:
        patterns: Patterns of the names that belong to the list.
        after: Name that the page begins behind; empty for the first page.
        limit: Most tasks of the page; None for all.
    """

    patterns: tuple[str, ...] = ("*",)
    after: str = ""
    limit: int | None = None


ALL_TASKS = TaskPage()


@dataclass(frozen=True, kw_only=True)
class ResidencyStats:
    """Which prompts one engine holds, and what it took.

    Attributes:
        replica: Name of the engine replica; another one after a restart.
        num_loads: Prompts loaded since it started.
        num_load_failures: Loads that failed.
        num_evictions: Prompts that gave way to others.
        num_swaps: Champions that another prompt took the place of.
        num_catalog_tasks: Tasks of the catalog.
        num_resident: Prompts in memory.
        resident_bytes: Device memory that they take.
        catalog_age_s: Since the catalog was last seen to be current; None before the first.
        num_lost: Tasks that left the catalog since it started and have not come back.
        num_broken: Entries of the catalog that cannot be read.
        precision: Dtype of its passes.
        backbone: Name of the backbone.
    """

    replica: str
    num_loads: int
    num_load_failures: int
    num_evictions: int
    num_swaps: int
    num_catalog_tasks: int
    num_resident: int
    resident_bytes: int
    catalog_age_s: float | None
    num_lost: int = 0
    num_broken: int = 0
    precision: str = "float32"
    backbone: str = ""


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """Whether an engine can answer.

    Attributes:
        ready: It knows a catalog. What is asked for before its prompt is loaded waits for that alone.
        detail: The cause of waiting, or the number of tasks served.
        num_served: Tasks that have their champion in memory.
        num_problems: Tasks whose wanted version could not be loaded.
        num_loading: Prompts that are being loaded.
        catalog_age_s: Since the catalog was last seen to be current; None before the first.
        num_lost: Tasks that left the catalog since the engine started and have not come back.
        num_broken: Entries of the catalog that cannot be read.
        precision: Dtype of the engine's passes.
    """

    ready: bool
    detail: str
    num_served: int = 0
    num_problems: int = 0
    num_loading: int = 0
    catalog_age_s: float | None = None
    num_lost: int = 0
    num_broken: int = 0
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True)
class FirstLook:
    """What the poller's first look at the registry has led to.

    Attributes:
        warning: What is wrong, and what is served nevertheless.
        refusal: Why there is nothing to serve, or nothing that may be served.
        is_written: Whether the catalog was changed.
    """

    warning: str | None = None
    refusal: str | None = None
    is_written: bool = False


class Engine(Protocol):
    """Any number of replicas that answer alike.

    Every method raises ``EngineBusyError`` or ``EngineUnavailableError`` if none of them can be asked.
    """

    async def backbone(self) -> BackboneInfo:
        """Description of the backbone that answers; waits for an engine, however long it takes to start."""
        ...

    async def predict(
        self, images: Sequence[Image], asks: Sequence[Ask], patience_s: float
    ) -> list[Answer | Refusal]:
        """Answer each ask, of any task and image; one that has no turn by then is refused as late."""
        ...

    async def explain(self, image: Image, ask: Ask, patience_s: float) -> Explanation | Refusal:
        """Show what the task that is asked makes the network attend to in one image."""
        ...

    async def tasks(self, page: TaskPage = ALL_TASKS) -> list[ServingState]:
        """States of the tasks of a page, by name, without labels and views."""
        ...

    async def task(self, name: str) -> ServingState | Refusal | None:
        """State of one task; why no version of it serves; None if it is not registered."""
        ...

    async def readiness(self) -> Readiness:
        """Whether requests can be answered."""
        ...

    async def stats(self) -> list[ResidencyStats]:
        """Which prompts the engines hold: of each replica that answers."""
        ...
