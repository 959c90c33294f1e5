"""Settings of a task's data: its place, format and splits. Nothing is read here."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from ship.errors import ConfigError
from ship.redaction import Url

__all__ = ["FORMATS", "DataFormat", "DataSource"]

DataFormat = Literal["auto", "imagefolder", "csv", "parquet", "jsonl", "vtab", "mvtec", "visa"]
FORMATS: tuple[DataFormat, ...] = get_args(DataFormat)
_TABLES = ("csv", "parquet", "jsonl")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One data set.

    Splits that the data names itself are kept. Where it names neither validation nor test images, a share is
    cut out of each class, by seed; see ``ship.data.splitting``.

    Both paths become a ``Url``, so that their text shows no passwords.

    Attributes:
        path: Folder or file, local or any fsspec URL.
        format: ``imagefolder``, ``csv``, ``parquet``, ``jsonl``, ``vtab``, ``mvtec``, ``visa``, or ``auto``
            to tell by what is there.
        val_fraction: Share of the training images to set aside for validation, from 0 to below 1. With
            ``vtab``, anything above 0 means the published 800/200 split.
        test_fraction: Share of the images to set aside for testing, from 0 to below 1.
        split_seed: Chooses which images are set aside.
        group: What no split of ours may divide, such as a part with several pictures: a column of a
            table, or a regular expression with one group, searched for in each path.
        allow_duplicates: Whether one file may lie in two splits; else it is refused.
        image_root: Folder that the paths in a table are relative to; None means the table's own.
        more: Table of further training images, such as `ship review export` writes, with paths relative to
            its own folder, which lies on the same file system; no split is cut from them. Those without a
            ``group`` are each one of their own.
    """

    path: str
    format: DataFormat = "auto"
    val_fraction: float = 0.0
    test_fraction: float = 0.2
    split_seed: int = 0
    group: str | None = None
    allow_duplicates: bool = False
    image_root: str | None = None
    more: str | None = None

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: Lists all settings that are out of range.
        """
        for name in ("path", "image_root", "more"):
            if isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, Url(value))
        problems = [
            *self._path_problems(),
            *self._group_problems(),
            *(
                f"{name}: expected a number from 0 to below 1, got {getattr(self, name)!r}"
                for name in ("val_fraction", "test_fraction")
                if not _is_fraction(getattr(self, name))
            ),
        ]
        if self.format not in FORMATS:
            problems.append(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if not _is_int(self.split_seed) or self.split_seed < 0:
            problems.append(f"split_seed: expected a whole number from 0, got {self.split_seed!r}")
        if not _is_bool(self.allow_duplicates):
            problems.append(f"allow_duplicates: expected true or false, got {self.allow_duplicates!r}")
        if not problems and self.val_fraction + self.test_fraction >= 1.0:
            problems.append(
                "val_fraction + test_fraction: expected less than 1, so that images are left for training, "
                f"got {self.val_fraction + self.test_fraction:g}"
            )
        if problems:
            raise ConfigError(problems)

    def _path_problems(self) -> list[str]:
        problems = []
        if not _is_path(self.path):
            problems.append(f"path: expected a folder, a file or a URL, got {self.path!r}")
        if self.more is not None and not _is_path(self.more):
            problems.append(f"more: expected a table of images, got {self.more!r}")
        if self.image_root is not None:
            if not _is_path(self.image_root):
                problems.append(f"image_root: expected a folder or a URL, got {self.image_root!r}")
            if self.format not in ("auto", *_TABLES):
                problems.append(f"image_root: only for {', '.join(_TABLES)}, but format is {self.format!r}")
        return problems

    def _group_problems(self) -> list[str]:
        expected = "group: expected a column, or a regular expression with one group"
        if self.group is None:
            return []
        if not _is_path(self.group):
            return [f"{expected}, got {self.group!r}"]
        if "(" not in self.group and self.format in ("auto", *_TABLES):
            return []
        try:
            num_groups = re.compile(self.group).groups
        except re.error as error:
            return [f"{expected}, got {self.group!r}: {error}"]
        return [] if num_groups == 1 else [f"{expected}, got {self.group!r} with {num_groups}"]

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, in a fixed order; URLs as JSON has them, with their secrets."""
        return asdict(self)

    def to_public_dict(self) -> dict[str, Any]:
        """The settings as plain values, in which URLs have no secrets: for a record that others read."""
        return {
            name: str(value) if isinstance(value, str) else value for name, value in self.to_dict().items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read settings back; unknown names are refused.

        Raises:
            ConfigError: A name is unknown or missing, or a value is out of range.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError([f"{name}: unknown setting; known are {', '.join(known)}" for name in unknown])
        if "path" not in values:
            raise ConfigError("path: missing; expected a folder, a file or a URL")
        return cls(**values)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_fraction(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value < 1.0
