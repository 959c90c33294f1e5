"""Numbers of replicas and their resources, as options and cluster want them. Pure."""

import math
from dataclasses import dataclass
from typing import Any, Self

from orchestrator.cluster.session import Session
from orchestrator.serve.options import ServeOptions
from orchestrator.serve.scale import Scale

__all__ = ["Placement", "replicas"]

# Cores to one ingress, at most: it is one event loop, and its decoders take the others.
_CPUS_OF_INGRESS = 4
# Requests that are read, decoded or answered in one ingress: as many rows as a full batch has.
_INGRESS_TARGET = 32.0
# Calls to one engine that each ingress has under way: two are the most, and with two the engine never waits.
_ENGINE_TARGET = 1.5
_UPSCALE_DELAY_S, _DOWNSCALE_DELAY_S = 10.0, 300.0
# Ray counts parts of a GPU in ten thousandths.
_PARTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Replicas of an endpoint.

    Attributes:
        engines: Engines of each backbone; closed.
        ingresses: Ingresses; closed. None for one in the process of each engine.
        cpus: CPUs reserved for each engine.
        gpus: GPUs reserved for each engine: one if there are enough, else a part of one.
        num_nodes: Nodes over which replicas are spread; None where that is not known.
    """

    engines: Scale
    ingresses: Scale | None
    cpus: float
    gpus: float
    num_nodes: int | None = None

    @classmethod
    def of(cls, session: Session, options: ServeOptions) -> Self:
        """The placement on a cluster, as the options want it."""
        num_backbones, nodes = len(options.backbones), session.num_nodes
        engines = options.engines.within(1, max(1, (session.num_gpus or nodes) // num_backbones))
        ingresses = None
        if options.ingresses != "inside":
            ingresses = options.ingresses.within(
                1 if session.is_own else nodes, max(nodes, session.num_cpus // _CPUS_OF_INGRESS)
            )
        assert engines.most is not None, "its bounds are set"
        num_engines = engines.most * num_backbones
        cpus: float = 1.0
        if options.num_cpus_per_replica is not None:
            cpus = options.num_cpus_per_replica
        elif session.is_own:
            cpus = session.num_cpus / num_engines
        gpus = min(1.0, math.floor(_PARTS * session.num_gpus / num_engines) / _PARTS)
        return cls(engines=engines, ingresses=ingresses, cpus=cpus, gpus=gpus, num_nodes=nodes)

    @property
    def num_threads(self) -> int:
        """Most threads of each engine's torch."""
        return max(1, int(self.cpus))

    def of_engines(self) -> dict[str, Any]:
        """Options of an engine's deployment in Ray Serve.

        What Ray counts are calls, each of many rows. However much waits, an ingress has no more than two
        under way for each engine; with fewer, the engine waits for Python now and then. So the target is
        three quarters of what the fewest ingresses can have under way.
        """
        assert self.ingresses is not None, "they are apart from engines"
        assert self.ingresses.least is not None, "its bounds are set"
        return replicas(self.engines, _ENGINE_TARGET * self.ingresses.least, self.num_nodes)

    def of_ingresses(self) -> dict[str, Any]:
        """Options of the ingress' deployment in Ray Serve."""
        return replicas(self.ingresses or self.engines, _INGRESS_TARGET, self.num_nodes)


def replicas(scale: Scale, target: float, num_nodes: int | None) -> dict[str, Any]:
    """Options of a deployment in Ray Serve.

    Args:
        scale: Number of replicas; closed.
        target: Requests under way in each replica that its number is chosen for.
        num_nodes: Nodes over which they are spread; None where that is not known.
    """
    assert scale.least is not None, "its bounds are set"
    assert scale.most is not None, "its bounds are set"
    nodes = num_nodes or 1
    spread = {"max_replicas_per_node": math.ceil(scale.most / nodes)} if nodes > 1 else {}
    if scale.least == scale.most:
        return {"num_replicas": scale.most, **spread}
    autoscaling = {
        "min_replicas": scale.least,
        "max_replicas": scale.most,
        "target_ongoing_requests": target,
        "upscale_delay_s": _UPSCALE_DELAY_S,
        "downscale_delay_s": _DOWNSCALE_DELAY_S,
    }
    return {"autoscaling_config": autoscaling, **spread}
