"""Pictures of four manufacturing data sets, read from packages and archives; none of them is kept here.

| data set | pictures | from |
| --- | --- | --- |
| solar cells (ELPV) | 2,624 | ``pip install elpv-dataset==1.0.0.post1``, CC BY-NC-SA 4.0 |
| textile | 2,000 | ``pip install conformal-clip-data==0.1.4``, MIT |
| extrusion | 1,348 | ``extrusion.tar``, or ``data/extrusion_images`` of github.com/fmegahed/qe_genai, MIT |
| microstructure | 750 | ``microstructure.tar``, or ``data/microstructure`` of the same, MIT |
"""

import importlib.util
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Picture", "read_archive", "read_solar_cells", "read_textile"]

_SOLAR_PACKAGE = "elpv-dataset==1.0.0.post1"
_TEXTILE_PACKAGE = "conformal-clip-data==0.1.4"
_ARCHIVES = {"extrusion": "extrusion_images", "microstructure": "microstructure"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image file with what its source says of it.

    Attributes:
        name: Name within its data set.
        kind: Class, as the source writes it.
        content: Bytes of the file.
    """

    name: str
    kind: str
    content: bytes


def read_solar_cells() -> list[Picture]:
    """Electroluminescence images of solar cells; the kind is ``PROBABILITY-TYPE``, such as ``0.67-mono``.

    The probability of a defect is 0, 0.33, 0.67 or 1; the type is ``mono`` or ``poly`` (crystalline).

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    folder = _find_package("elpv_dataset", _SOLAR_PACKAGE) / "data"
    found = []
    for line in (folder / "labels.csv").read_text().splitlines():
        if line.strip():
            name, probability, type_ = line.split()
            found.append(
                Picture(
                    name=Path(name).name,
                    kind=f"{float(probability):.2f}-{type_}",
                    content=(folder / name).read_bytes(),
                )
            )
    return found


def read_textile() -> list[Picture]:
    """Simulated weaves: ``nominal`` (1,000), ``local`` and ``global`` defects (500 each).

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    folder = _find_package("conformal_clip_data", _TEXTILE_PACKAGE) / "data" / "textile_images" / "simulated"
    return list(_read_folder(folder))


def read_archive(name: str, folder: Path | None) -> list[Picture]:
    """Pictures of ``extrusion`` or ``microstructure``; the kind is the folder of the file.

    Args:
        name: The data set.
        folder: It holds ``NAME.tar`` or the unpacked folder.

    Raises:
        FileNotFoundError: Neither is there, or no folder was given.
    """
    unpacked = _ARCHIVES[name]
    if folder is not None and (archive := folder / f"{name}.tar").is_file():
        return _read_tar(archive)
    if folder is not None and (folder / unpacked).is_dir():
        return list(_read_folder(folder / unpacked))
    raise FileNotFoundError(
        f"{name}: expected {name}.tar or {unpacked}/ in {folder or 'a folder that --pictures names'}; found "
        "neither. With a network: `git clone https://github.com/fmegahed/qe_genai`, and name its folder data"
    )


def _find_package(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed: `pip install --no-deps {package}`")
    return Path(spec.submodule_search_locations[0])


def _read_folder(folder: Path) -> Iterator[Picture]:
    for file in sorted(folder.glob("*/*.*")):
        kind = file.parent.name
        yield Picture(name=f"{kind}/{file.name}", kind=kind, content=file.read_bytes())


def _read_tar(archive: Path) -> list[Picture]:
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if (opened := tar.extractfile(member)) is not None:
                kind, name = member.name.split("/")[-2:]
                found.append(Picture(name=f"{kind}/{name}", kind=kind, content=opened.read()))
    return sorted(found, key=lambda picture: picture.name)
