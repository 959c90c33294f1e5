"""Plain values of the registry: tasks, versions and rollouts, and how they are read from MLflow's objects."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.names import is_digest
from orchestrator.registry.advice import Advice
from orchestrator.store.documents.catalog import Canary
from orchestrator.store.documents.rollout import Aliases

__all__ = [
    "BACKBONE_TAG",
    "CANARY",
    "CANARY_SHARE_TAG",
    "CHALLENGER",
    "CHAMPION",
    "CHOICE_TAG",
    "DATA_TAG",
    "DIGEST_TAG",
    "FINGERPRINT_TAG",
    "GATE_REASON_TAG",
    "GATE_TAG",
    "HELD_OUT_TAG",
    "PREVIOUS",
    "PUBLISHED_TAG",
    "REFUSED_TAG",
    "RETIRED",
    "SHADOW",
    "SINCE_TAG",
    "TAGS_TAG",
    "TASK_KEY_TAG",
    "VERDICT_TAG",
    "ModelView",
    "Promotion",
    "TaskInfo",
    "Trials",
    "VersionInfo",
    "aliases_at",
    "describe_broken",
    "digests_of",
    "given_tags",
    "name_version",
    "own_tags",
    "read_share",
    "read_tags",
    "read_time_s",
    "read_trials",
    "read_version",
    "since_tag",
    "version_tags",
]

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
CANARY, SHADOW = "canary", "shadow"
# The champion that was taken out of service.
RETIRED = "retired"
DIGEST_TAG, METRICS_TAG, DATA_TAG = "ship.digest", "ship.metrics", "ship.data_fingerprint"
HELD_OUT_TAG, CANARY_SHARE_TAG = "ship.held_out_fingerprint", "ship.canary_share"
# Of a model: its champion, and when that began to serve, as in 3@1764144000.0.
SINCE_TAG = "ship.champion_since"
GATE_TAG, GATE_REASON_TAG, REFUSED_TAG = "ship.gate", "ship.gate_reason", "ship.gate_refused"
BACKBONE_TAG, FINGERPRINT_TAG = "ship.backbone", "ship.backbone_fingerprint"
TASK_KEY_TAG = "ship.task_key"
PUBLISHED_TAG, CHOICE_TAG, VERDICT_TAG = "ship.published_s", "ship.choice", "ship.verdict"
# Of a model: the names of the tags that the manifest gave it, and the time at which they were read.
TAGS_TAG = "ship.tags"
_RESERVED = ("ship.", "mlflow.")
# The last second of the year 9999, the last that a date can be written for.
_MAX_TIME_S = 253_402_300_799
# Of an alias in a message.
_LONGEST = 80
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True, kw_only=True)
class VersionInfo:
    """One version of one task.

    Attributes:
        version: Number, from 1.
        digest: Digest of its artifact; None for a version registered by another program.
        source: URI of its artifact.
        metrics: Metrics as measured when it was tuned.
        aliases: Those of ``champion``, ``challenger``, ``previous`` and others that it has now.
        created_s: Time of registration, seconds since the epoch.
        run_id: Id of the MLflow run that made it.
        tags: All tags, ``ship.gate`` and ``ship.gate_reason`` among them.
    """

    version: int
    digest: str | None
    source: str
    metrics: Mapping[str, float]
    aliases: tuple[str, ...]
    created_s: float
    run_id: str | None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_fingerprint(self) -> str | None:
        """Fingerprint of the images and labels that it was tuned and measured with."""
        return self.tags.get(DATA_TAG)

    @property
    def held_out_fingerprint(self) -> str | None:
        """Fingerprint of its held-out images and their labels alone; None if it is not on record."""
        return self.tags.get(HELD_OUT_TAG) or None

    @property
    def published_s(self) -> float:
        """Time of its publication, seconds since the epoch; that of its registration if it is not known."""
        time_s = _read_seconds(self.tags.get(PUBLISHED_TAG, ""))
        return self.created_s if time_s is None else time_s

    @property
    def backbone(self) -> str | None:
        """Fingerprint of the backbone that it was tuned on; None if it does not tell."""
        fingerprint = self.tags.get(FINGERPRINT_TAG)
        return fingerprint if is_digest(fingerprint) else None

    @property
    def choice(self) -> str | None:
        """Why its settings were chosen, where there was a choice."""
        return self.tags.get(CHOICE_TAG) or None

    @property
    def advice(self) -> Advice | None:
        """The verdict on it; None for a version of before there were any."""
        return Advice.from_json(self.tags.get(VERDICT_TAG))

    @property
    def gate_reason(self) -> str | None:
        """Reason of the gate's decision."""
        return self.tags.get(GATE_REASON_TAG)


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """The parts of a task's registered model that serving needs.

    Attributes:
        task: Name of the task.
        created_ms: Time at which the model was made, in milliseconds since the epoch.
        aliases: Versions by alias, without those that are broken.
        broken: Aliases at versions that are gone, as servers of older MLflow versions leave them, or that
            MLflow cannot read.
        tags: Tags of the model.
        digests: Digests of the versions that have an alias; None for versions registered by other programs.
        backbones: Fingerprint of the backbone by digest of the artifact, of versions that tell it.
    """

    task: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str]
    digests: Mapping[int, str | None]
    created_ms: int = 0
    broken: Mapping[str, int] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)

    @property
    def standing(self) -> Aliases:
        """The aliases and the canary's share."""
        return Aliases(versions=dict(self.aliases), share=read_share(self.aliases, self.tags))

    @property
    def written(self) -> Aliases:
        """The aliases as MLflow has them, with those that are broken, and the canary's share."""
        aliases = {**self.aliases, **self.broken}
        return Aliases(versions=aliases, share=read_share(aliases, self.tags))

    @property
    def problem(self) -> str | None:
        """What is wrong with its aliases; None if nothing is."""
        return describe_broken(self.task, self.broken)


@dataclass(frozen=True, kw_only=True)
class Trials:
    """The versions of a task that are tried on real requests.

    Attributes:
        canary: The version that answers a share of the requests, if any.
        shadow: The version that gets copies of requests and whose answers are dropped, if any.
    """

    canary: Canary | None = None
    shadow: int | None = None


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """Summary of one task.

    Attributes:
        task: Name of the task.
        champion: The version that is served, if any.
        challenger: The version that waits for a decision, if any.
        previous: The version that a rollback goes to, if any.
        latest: The newest version; None if all were deleted.
        updated_s: Time of the last change, seconds since the epoch.
        aliases: Versions by alias, without those that are broken.
        broken: Aliases at versions that are gone or cannot be read, as far as they were looked at.
        tags: Tags of its registered model.
    """

    task: str
    champion: VersionInfo | None
    challenger: VersionInfo | None
    previous: int | None
    latest: int | None
    updated_s: float
    aliases: Mapping[str, int] = field(default_factory=dict)
    broken: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """What is wrong with its aliases; None if nothing is."""
        return describe_broken(self.task, self.broken)

    @property
    def is_retired(self) -> bool:
        """Whether the task was taken out of service."""
        return self.champion is None and RETIRED in self.aliases

    @property
    def serves_since_s(self) -> float | None:
        """When the champion began to serve, seconds since the epoch; None if that is not known."""
        version, _, time = self.tags.get(SINCE_TAG, "").partition("@")
        if self.champion is None or version != str(self.champion.version):
            return None
        return _read_seconds(time)

    @property
    def own_tags(self) -> dict[str, str]:
        """Tags by which people find the task: of its manifest, or made in MLflow's page."""
        return own_tags(self.tags)

    @property
    def trials(self) -> Trials:
        """The canary and the shadow of the task."""
        return read_trials(Aliases(versions=self.aliases, share=read_share(self.aliases, self.tags)))


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A champion that was replaced.

    Attributes:
        task: Name of the task.
        from_version: The champion before; None if there was none.
        to_version: The champion now; if it waits for approval, the one that is asked for.
        waits: Whether it waits for the approval of a second person.
    """

    task: str
    from_version: int | None
    to_version: int
    waits: bool = False


def read_trials(aliases: Aliases) -> Trials:
    """The versions that are tried; what was set by hand and cannot be tried is left out."""
    champion, canary, shadow = (aliases.versions.get(alias) for alias in (CHAMPION, CANARY, SHADOW))
    return Trials(
        canary=None
        if canary is None or canary == champion or aliases.share is None
        else Canary(version=canary, share=aliases.share),
        shadow=None if shadow == champion else shadow,
    )


def describe_broken(task: str, broken: Mapping[str, int]) -> str | None:
    """What is wrong with aliases at versions that are gone, and what mends it; None if there are none."""
    if not broken:
        return None
    named = ", ".join(
        f"@{ascii(alias)[1:-1][:_LONGEST]} at version {version or '?'}"
        for alias, version in sorted(broken.items())
    )
    return (
        f"MLflow has {named}, which is gone or cannot be read; it is left out: `ship promote "
        f"{task} VERSION` sets it right"
    )


def read_share(aliases: Mapping[str, int], tags: Mapping[str, str]) -> float | None:
    """The canary's share in a model's tags, which may have been edited by hand; None without a canary."""
    if CANARY not in aliases:
        return None
    try:
        share = float(tags.get(CANARY_SHARE_TAG, ""))
    except ValueError:
        return None
    return share if 0.0 < share < 1.0 else None


def version_tags(digest: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> dict[str, str]:
    """Tags that a version is registered with; ``read_version`` reads them back."""
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {**tags, DIGEST_TAG: digest, METRICS_TAG: json.dumps(finite, sort_keys=True)}


def since_tag(version: int, since_s: float) -> str:
    """The tag that tells when a champion began to serve."""
    return f"{version}@{since_s!r}"


def own_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that people gave: none of this package's or of MLflow's own."""
    return {name: value for name, value in tags.items() if not name.lower().startswith(_RESERVED)}


def given_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], float]:
    """The tags of a model that its manifest gave, and when that was read, seconds since the epoch.

    What tells them from those made in MLflow's page is a tag itself, which a person may have edited.
    """
    try:
        said = json.loads(tags.get(TAGS_TAG, "{}"))
        names, read_s = {str(name) for name in said.get("names", ())}, float(said.get("read_s", 0.0))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}, 0.0
    return {name: value for name, value in own_tags(tags).items() if name in names}, read_s


def name_version(version: int | None) -> str:
    """A version as texts name it; that there is none, for None."""
    return "nothing" if version is None else f"version {version}"


def aliases_at(aliases: Mapping[str, int], version: int) -> tuple[str, ...]:
    """Those of a model's aliases that stand at ``version``."""
    return tuple(sorted(name for name, at in aliases.items() if at == version))


def read_version(found: Any, aliases: Mapping[str, int] | None = None) -> VersionInfo:
    """A ``ModelVersion`` of MLflow's as a plain value.

    Args:
        found: The model version.
        aliases: All aliases of its model, where ``found`` does not carry its own.
    """
    version, tags = int(found.version), read_tags(found)
    own = tuple(sorted(found.aliases or ())) if aliases is None else aliases_at(aliases, version)
    digest = tags.get(DIGEST_TAG)
    return VersionInfo(
        version=version,
        digest=digest if is_digest(digest) else None,
        source=str(found.source or ""),
        metrics=_read_metrics(tags.get(METRICS_TAG)),
        aliases=own,
        created_s=read_time_s(found.creation_timestamp),
        run_id=found.run_id or None,
        tags=tags,
    )


def digests_of(found: Any) -> set[str]:
    """Digests of artifacts that a ``ModelVersion`` of MLflow's names: ours by tag, others by their source."""
    texts = [str(found.source or ""), *(str(value) for value in (found.tags or {}).values())]
    return {match[0] for text in texts for match in _DIGEST.finditer(text)}


def _read_metrics(text: str | None) -> dict[str, float]:
    """Metrics of a tag, which a person may have edited: what is no number is left out."""
    try:
        # As a number with a fraction: an integer may be too large for one.
        values = json.loads(text or "{}", parse_int=float)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if type(value) is float and math.isfinite(value)}


def read_tags(found: Any) -> dict[str, str]:
    """Tags of a model or a version of MLflow's; a database may have values that are no text."""
    return {str(name): "" if value is None else str(value) for name, value in (found.tags or {}).items()}


def read_time_s(milliseconds: object) -> float:
    """A time of MLflow's in seconds since the epoch; 0 for one that is missing or no date."""
    if not isinstance(milliseconds, (int, float)) or not 0 <= milliseconds <= 1000 * _MAX_TIME_S:
        return 0.0
    return milliseconds / 1000


def _read_seconds(text: str) -> float | None:
    """Seconds since the epoch in a tag, which a person may have edited; None if it is no date."""
    try:
        time_s = float(text)
    except ValueError:
        return None
    return time_s if 0.0 <= time_s <= _MAX_TIME_S else None
