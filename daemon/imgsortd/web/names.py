"""What clusters and their folders are called on the page."""

from __future__ import annotations

from typing import Any

from imgsortd.adapters.store import Store
from imgsortd.core.names import folder_of
from imgsortd.core.routing import REVIEW_FOLDER
from imgsortd.web.plain import shown


class ShownNames:
    """Knows the names of all clusters as they were when it was made."""

    def __init__(self, store: Store) -> None:
        self._named = store.records.named_folders()

    def name(self, cluster_id: int | None) -> str | None:
        """Return the name that a person has given a cluster; None where there is none."""
        if cluster_id is None or cluster_id not in self._named:
            return None
        return shown(self._named[cluster_id])

    def folder(self, cluster_id: int | None) -> str:
        """Return a cluster's folder; that of review where it is None."""
        if cluster_id is None:
            return shown(REVIEW_FOLDER)
        return shown(folder_of(cluster_id, self._named))

    def place(self, cluster_id: int | None) -> dict[str, Any]:
        """Describe a cluster, or review, by number and folder."""
        return {"cluster": cluster_id, "folder": self.folder(cluster_id)}
