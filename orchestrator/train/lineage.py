"""Lineage of a run, as tags of MLflow's runs: backbone, package, manifest, commit and user.

The names that MLflow's page knows (``mlflow.user``, ``mlflow.source.*``) are used where there is one.
"""

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from orchestrator.manifest.model import Manifest
from orchestrator.store.documents.audit import Author
from ship.backbone import Backbone
from ship.redaction import redact_url
from ship.version import __version__

__all__ = ["find_commit", "find_lineage"]

_logger = logging.getLogger(__name__)
GIT_PATIENCE_S = 5.0
# Git is not to be led to another repository, and not to write to this one.
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE")
_GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false")


def find_lineage(
    run: str, path: str, manifest: Manifest, backbone: Backbone, author: Author | None = None
) -> dict[str, str]:
    """Tags of all MLflow runs of one ``ship tune``.

    Args:
        run: Name of the run.
        path: Path of the manifest, or its URL.
        manifest: The manifest.
        backbone: The backbone that its tasks are tuned on.
        author: The user that started it; by default the user of this process.
    """
    author = author or Author.of_process()
    return {
        "ship.run": run,
        "ship.version": __version__,
        "ship.host": author.host,
        "ship.backbone": backbone.info.name,
        "ship.backbone_fingerprint": backbone.fingerprint,
        "ship.manifest_digest": manifest.digest,
        "mlflow.user": author.by,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": redact_url(path),
        **({} if "://" in path else find_commit(Path(path))),
    }


def find_commit(manifest: Path, patience_s: float = GIT_PATIENCE_S) -> dict[str, str]:
    """The commit that a manifest's folder is checked out at, and whether tracked files differ from it.

    Empty outside of a repository, before its first commit, and without git. The folder counts as changed
    (``mlflow.source.git.dirty``) too if the manifest itself is not committed.

    Args:
        manifest: Path of the manifest.
        patience_s: Longest time for each call of git; a data set in the repository may take it long.
    """
    folder = manifest.absolute().parent
    ask = _asker(folder, patience_s)
    commit = ask("rev-parse", "--verify", "HEAD")
    if not commit:
        return {}
    changes = ask("status", "--porcelain", "--untracked-files=no", "--", ".")
    own = ask("status", "--porcelain", "--ignored", "--", manifest.name)
    tags = {"mlflow.source.git.commit": commit}
    if changes is not None and own is not None:
        tags["mlflow.source.git.dirty"] = str(bool(changes or own)).lower()
    return tags


def _asker(folder: Path, patience_s: float) -> Callable[..., str | None]:
    """A function that gives git's answer about a folder; None if it has none."""
    env = {name: value for name, value in os.environ.items() if name not in _MISLEADING}

    def ask(*command: str) -> str | None:
        try:
            done = subprocess.run(
                [*_GIT, "-C", str(folder), *command],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=patience_s,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            _logger.debug("git does not tell of %s: %s", folder, error)
            return None
        return done.stdout.decode(errors="replace").strip()

    return ask
