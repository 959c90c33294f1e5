"""Semantic hierarchical prompt tuning (SHIP) of a frozen timm vision transformer.

Works alone, in a notebook: no cluster, no tracking server, no cloud.

    import ship

    result = ship.tune("data/bottle-caps", epochs=30)
    result.save("bottle-caps")
    model = ship.load("bottle-caps")
    model.predict(["cap.png"])[0].label
"""

from typing import TYPE_CHECKING

from ship.lazy import lazy_names

if TYPE_CHECKING:
    from ship.backbone import load_backbone
    from ship.data import DataSource, TaskData
    from ship.notebook import Model, Prediction, TunedTask, load, tune
    from ship.version import __version__

__all__ = [
    "DataSource",
    "Model",
    "Prediction",
    "TaskData",
    "TunedTask",
    "__version__",
    "load",
    "load_backbone",
    "tune",
]

__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(__all__, "notebook"),
        **dict.fromkeys(("DataSource", "TaskData"), "data"),
        "__version__": "version",
        "load_backbone": "backbone",
    },
)


def __dir__() -> list[str]:
    return __all__
