"""Reservations at the coordinator of Ray's autoscaler, an actor of the cluster that outlives jobs.

Ray Train's controller reserves the resources of its workers there, prolongs the reservation every 20 s and
cancels it at its end. When the controller is killed with its driver's job, the reservation stays for 180 s,
and another run's controller waits until then, while the resources are idle.
"""

import time

import ray

__all__ = ["cancel_reservation"]

_COORDINATOR = "AutoscalingCoordinator"
# A controller that is being ended at this moment may prolong its reservation once more.
_ENDING_S = 3.0


def cancel_reservation(requester: str) -> None:
    """Cancel a reservation whose requester has ended or is about to.

    Args:
        requester: Name of the requester.
    """
    try:
        coordinator = ray.get_actor(_COORDINATOR, namespace=_COORDINATOR)
    except ValueError:
        # No run of Ray Train or Ray Data has reserved anything on this cluster.
        return
    ray.get(coordinator.cancel_request.remote(requester))
    time.sleep(_ENDING_S)
    ray.get(coordinator.cancel_request.remote(requester))
