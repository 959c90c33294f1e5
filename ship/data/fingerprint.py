"""Fingerprint of a data set, 64 hex digits: equal data gives an equal task key, wherever it is read.

It covers format, split options, and path, label, split and content of every image. It does not cover where
a local folder lies, times of change, or the order of listing. Of remote files the tag that the backend gives
(size with ETag, checksum, version or time of change) stands for the content; where it gives none, it is read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ship.data.duplicates import count_repeated, refuse_duplicates
from ship.data.evidence import Evidence
from ship.data.folder import Folder
from ship.data.items import Listing
from ship.data.listing import open_listing, open_own
from ship.data.passed_over import PassedOver
from ship.data.source import DataSource
from ship.errors import DataError
from ship.in_order import map_in_order

if TYPE_CHECKING:
    from ship.data.task_data import Split

__all__ = [
    "DataSummary",
    "combine_fingerprint",
    "describe_data",
    "digest_files",
    "digest_images",
    "file_digests",
    "fingerprint_data",
    "fingerprint_split",
    "remote_tags",
]

_NUM_THREADS, _NUM_SAMPLED = 4, 3
# To start threads for fewer images takes longer than to read them.
_ENOUGH_FOR_THREADS = 64
# Of one image: 64 bits tell a hundred thousand apart.
_NUM_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Summary of a data set, made without decoding it.

    Attributes:
        fingerprint: 64 hex digits.
        labels: Class names.
        num_train: Training images.
        num_val: Validation images.
        num_test: Test images.
        num_repeated: Training images whose very bytes are those of another, of local data.
        num_repeated_held_out: Of the images to measure on, those whose very bytes are those of another.
        sizes: Width and height of a few training images, of local data.
        evidence: On what the fingerprint rests: number of images by ``content``, ``etag``, ``checksum``,
            ``version`` or ``time`` of change (with the size).
        passed_over: What lies beside the images and was left out.
        unmeasured: Classes without a held-out image.
    """

    fingerprint: str
    labels: tuple[str, ...]
    num_train: int
    num_val: int
    num_test: int
    num_repeated: int = 0
    num_repeated_held_out: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    evidence: Mapping[Evidence, int] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()
    unmeasured: tuple[str, ...] = ()


def fingerprint_data(source: DataSource) -> str:
    """The fingerprint of a data set; equals ``TaskData.fingerprint`` once it is loaded.

    Raises:
        DataError: Lists every problem of its layout, and every image that is missing or cannot be read.
    """
    return describe_data(source).fingerprint


def file_digests(source: DataSource) -> frozenset[str]:
    """sha256 of every file of a data set itself, of any split, without ``more``; remote ones are read, too.

    Raises:
        DataError: Its listing cannot be read; or lists every image that cannot be read.
    """
    return frozenset(digest_files(*open_own(source)).values())


def describe_data(source: DataSource) -> DataSummary:
    """Fingerprint, classes and counts of a data set.

    Raises:
        DataError: Lists every problem of its layout, and every image that is missing, cannot be read, or
            lies in two splits.
    """
    folder, listing = open_listing(source)
    evidence: Mapping[Evidence, int] = {"content": len(listing.items)}
    if folder.is_local:
        tags = digest_files(folder, listing)
    else:
        tags, evidence = _remote_tags(folder, listing)
    if folder.is_local:
        refuse_duplicates(source, listing, tags)
    # Brings torch, which a process that only reads fingerprints, such as the ledger, does without.
    from ship.data.sizes import sizes_of

    counts = listing.num_of_split
    return DataSummary(
        fingerprint=combine_fingerprint(source, listing, tags),
        labels=listing.labels,
        num_train=counts["train"],
        num_val=counts["val"],
        num_test=counts["test"],
        num_repeated=count_repeated(listing, tags, "train") if folder.is_local else 0,
        num_repeated_held_out=(
            count_repeated(listing, tags, listing.held_out_split) if folder.is_local else 0
        ),
        sizes=tuple(sizes_of(folder, listing, _NUM_SAMPLED)) if folder.is_local else (),
        evidence=evidence,
        passed_over=listing.passed_over,
        unmeasured=listing.unmeasured,
    )


def combine_fingerprint(source: DataSource, listing: Listing, tags: Mapping[str, str]) -> str:
    """Digest of the listing and of each image's content tag.

    Args:
        source: Gives the split options.
        listing: Gives paths, labels and splits.
        tags: sha256 of a local image, or the backend's tag of a remote one, by path.
    """
    options: dict[str, object] = {
        "format": listing.format,
        "val_fraction": float(source.val_fraction),
        "test_fraction": float(source.test_fraction),
        "split_seed": source.split_seed,
        "labels": listing.labels,
    }
    if source.group is not None:
        options["group"] = source.group
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for item in listing.items:
        group = [] if item.group is None else [item.group]
        digest.update(json.dumps([item.path, item.label, item.split, tags[item.path], *group]).encode())
    return digest.hexdigest()


def fingerprint_split(labels: Sequence[str], split: "Split") -> str | None:
    """Digest of path, label and content of each image of a split, in their order; None without contents.

    Other splits play no part, nor the view, nor a backbone's input size. Answers about two splits of one
    fingerprint are pairs, place by place.

    Args:
        labels: Class names.
        split: The images.
    """
    lines = _describe_images(labels, split)
    return None if lines is None else hashlib.sha256(b"".join(lines)).hexdigest()


def digest_images(labels: Sequence[str], split: "Split") -> list[str] | None:
    """16 hex digits for each image of a split, by path, label and content; None without contents.

    By these the images that two splits share are found.

    Args:
        labels: Class names.
        split: The images.
    """
    lines = _describe_images(labels, split)
    return None if lines is None else [hashlib.sha256(line).hexdigest()[:_NUM_DIGITS] for line in lines]


def _describe_images(labels: Sequence[str], split: "Split") -> list[bytes] | None:
    if split.contents is None:
        return None
    told = zip(split.paths, split.labels_B.tolist(), split.contents, strict=True)
    return [json.dumps([path, labels[label], content]).encode() for path, label, content in told]


def remote_tags(folder: Folder, listing: Listing) -> dict[str, str]:
    """Content tags of a remote backend, by path of the image.

    Raises:
        DataError: Lists every image that is missing.
    """
    return _remote_tags(folder, listing)[0]


def _remote_tags(folder: Folder, listing: Listing) -> tuple[dict[str, str], Counter[Evidence]]:
    tags, evidence = folder.content_tags([item.path for item in listing.items])
    if missing := [item.path for item in listing.items if item.path not in tags]:
        raise DataError([f"{folder.locate(path)}: no such file or folder" for path in missing])
    return tags, evidence


def digest_files(folder: Folder, listing: Listing) -> dict[str, str]:
    """sha256 of the file of every image, by path.

    Raises:
        DataError: Lists every image that cannot be read.
    """

    def hash_file(path: str) -> tuple[str, str, tuple[str, ...]]:
        try:
            return path, hashlib.sha256(folder.read(path)).hexdigest(), ()
        except DataError as error:
            return path, "", error.problems

    paths = [item.path for item in listing.items]
    if len(paths) < _ENOUGH_FOR_THREADS:
        results = [hash_file(path) for path in paths]
    else:
        results = list(map_in_order(hash_file, paths, _NUM_THREADS))
    if problems := [problem for _, _, found in results for problem in found]:
        raise DataError(problems)
    return {path: tag for path, tag, _ in results}
