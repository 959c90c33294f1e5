"""Data sets: where their images lie, which class and split each belongs to, and what they hold.

Life of a data set: ``DataSource`` (settings) -> ``list_items`` (paths, classes, splits; reads no image) ->
``describe_data`` (fingerprint; decodes no image) -> ``load_task_data`` (tensors).

What decodes images brings torch, and is imported when it is first asked for: a process that only hands tasks
on needs no more than their settings.
"""

from typing import TYPE_CHECKING

from ship.data.fingerprint import DataSummary, describe_data, fingerprint_data
from ship.data.folder import find_folders, path_exists, read_small_file
from ship.data.items import Item, Listing
from ship.data.listing import TABLE_FORMATS, TABLE_SUFFIXES, list_items
from ship.data.source import DataSource
from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.data.inspection import ImageFacts, Inspection, find_near_duplicates, inspect_data
    from ship.data.loading import load_task_data
    from ship.data.task_data import Split, TaskData

__all__ = [
    "TABLE_FORMATS",
    "TABLE_SUFFIXES",
    "DataSource",
    "DataSummary",
    "ImageFacts",
    "Inspection",
    "Item",
    "Listing",
    "Split",
    "TaskData",
    "describe_data",
    "find_folders",
    "find_near_duplicates",
    "fingerprint_data",
    "inspect_data",
    "list_items",
    "load_task_data",
    "path_exists",
    "read_small_file",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ImageFacts": "inspection",
        "Inspection": "inspection",
        "Split": "task_data",
        "TaskData": "task_data",
        "find_near_duplicates": "inspection",
        "inspect_data": "inspection",
        "load_task_data": "loading",
    },
)
