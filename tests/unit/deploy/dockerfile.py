"""What deploy/Dockerfile says, as stages of instructions; and what .dockerignore lets into a build."""

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path

from tests.unit.deploy.manifests import DEPLOY

__all__ = ["DOCKERFILE", "ROOT", "Stage", "is_sent", "read_stages"]

ROOT = DEPLOY.parent
DOCKERFILE = DEPLOY / "Dockerfile"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a build: its name, its base, and its instructions in order."""

    name: str | None
    base: str
    instructions: tuple[tuple[str, str], ...]

    def all(self, keyword: str) -> list[str]:
        """Values of all instructions of a kind."""
        return [value for found, value in self.instructions if found == keyword]

    def last(self, keyword: str) -> str:
        """Value of the instruction that counts where a later one takes an earlier one's place."""
        return self.all(keyword)[-1]

    def words(self, keyword: str) -> list[str]:
        """The last instruction of a kind, in its form that needs no shell."""
        words: list[str] = json.loads(self.last(keyword))
        return words

    def pairs(self, keyword: str) -> dict[str, str]:
        """``name=value`` pairs of all instructions of a kind, without quotes."""
        text = " ".join(self.all(keyword))
        return {name: value.strip('"') for name, value in re.findall(r'([\w.]+)=("[^"]*"|\S+)', text)}


def read_stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile; what comes before the first is left out."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    stages: list[tuple[str, list[tuple[str, str]]]] = []
    for line in lines.replace("\\\n", " ").splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword == "FROM":
            stages.append((value, []))
        elif keyword and stages:
            stages[-1][1].append((keyword, " ".join(value.split())))
    return [_stage(head, instructions) for head, instructions in stages]


def _stage(head: str, instructions: list[tuple[str, str]]) -> Stage:
    base, _, name = head.partition(" AS ")
    return Stage(name=name or None, base=base, instructions=tuple(instructions))


def is_sent(path: str, rules: Path = ROOT / ".dockerignore") -> bool:
    """Whether a file is sent to a build: the last rule that names it, or a folder above it, decides."""
    sent = True
    for rule in rules.read_text().splitlines():
        if rule and not rule.startswith("#"):
            pattern = rule.removeprefix("!")
            if any(_matches(above, pattern) for above in _places(path)):
                sent = rule.startswith("!")
    return sent


def _places(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]


def _matches(path: str, pattern: str) -> bool:
    """As an engine matches: ``*`` stays in its folder, ``**`` does not."""
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.rpartition("/")[2], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatch.fnmatch(path, pattern)
