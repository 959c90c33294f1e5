"""Strict models of the JSON documents in a store, whose errors name a place and never repeat the content."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from orchestrator.errors import StoreError
from orchestrator.names import DIGEST_PATTERN, TASK_NAME_PATTERN

__all__ = ["STRICT", "Digest", "Document", "TaskName"]

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)
TaskName = Annotated[str, StringConstraints(pattern=f"^{TASK_NAME_PATTERN}$")]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST_PATTERN}$")]


class Document(BaseModel):
    """A JSON document, or a part of one. Unknown keys, missing keys and other types are refused."""

    model_config = STRICT

    @classmethod
    def read(cls, content: bytes, where: str, advice: str) -> Self:
        """The document in an object's content.

        Args:
            content: JSON.
            where: Name of the document, for the error.
            advice: Advice for a document that is refused.

        Raises:
            StoreError: Lists all problems.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [_describe(problem["loc"], problem["msg"]) for problem in found]
        # Outside of the handler: a traceback of the cause could show the content.
        raise StoreError([f"{where}: {problem}; {advice}" for problem in problems])


def _describe(place: tuple[int | str, ...], message: str) -> str:
    parts = [str(part)[:80] for part in place if part != "[key]"]
    text = message.removeprefix("Value error, ")
    return f"{'/'.join(parts)!r}: {text}" if parts else text
