"""Strict models of the JSON documents in a store, whose errors name a place and never repeat the content."""

import json
from typing import Annotated, Self, get_args

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from orchestrator.errors import StoreError
from orchestrator.names import DIGEST_PATTERN, TASK_NAME_PATTERN

__all__ = ["STRICT", "Digest", "Document", "NewerSchemaError", "TaskName"]

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)
TaskName = Annotated[str, StringConstraints(pattern=f"^{TASK_NAME_PATTERN}$")]
Digest = Annotated[str, StringConstraints(pattern=f"^{DIGEST_PATTERN}$")]


class NewerSchemaError(StoreError):
    """A document is of a later version of this program: it is not damaged, and not to be written over."""


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
            NewerSchemaError: Its ``schema`` is above those that are known.
            StoreError: Lists all problems.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            problems = [_describe(problem["loc"], problem["msg"]) for problem in found]
        known, schema = cls._newest_schema(), _schema_of(content)
        if schema is not None and schema > known:
            raise NewerSchemaError(
                f"{where}: 'schema': expected at most {known}, found {schema}, of a later version of this "
                "program; update this program"
            )
        # Outside of the handler: a traceback of the cause could show the content.
        raise StoreError([f"{where}: {problem}; {advice}" for problem in problems])

    @classmethod
    def _newest_schema(cls) -> int:
        """The highest schema that is known; 1 of a document that has not had another one."""
        field = cls.model_fields.get("schema_")
        if field is None:
            return 1
        limits = [limit.le for limit in field.metadata if hasattr(limit, "le")]
        return int(max([*get_args(field.annotation), *limits]))


def _schema_of(content: bytes) -> int | None:
    try:
        schema = json.loads(content)["schema"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return schema if type(schema) is int else None


def _describe(place: tuple[int | str, ...], message: str) -> str:
    parts = [str(part)[:80] for part in place if part != "[key]"]
    text = message.removeprefix("Value error, ")
    return f"{'/'.join(parts)!r}: {text}" if parts else text
