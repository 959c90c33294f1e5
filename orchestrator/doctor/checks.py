"""All checks of `ship doctor`, those that others need before them."""

from orchestrator.doctor.examination import Check
from orchestrator.doctor.machine import check_device, check_home, check_ray, check_room, check_versions
from orchestrator.doctor.registry import (
    check_catalog,
    check_ownership,
    check_records,
    check_registry,
    check_spool,
)
from orchestrator.doctor.serving import check_backbones, check_endpoint
from orchestrator.doctor.store import check_audit, check_store, check_tokens

__all__ = ["CHECKS"]

_BOTH = ("store", "registry")

CHECKS = (
    Check(name="versions", look=check_versions),
    Check(name="home", look=check_home),
    Check(name="room", look=check_room),
    Check(name="store", look=check_store, expected="a store that this user can write to"),
    Check(name="registry", look=check_registry, expected="an MLflow that answers"),
    Check(name="ownership", look=check_ownership, needs=_BOTH, expected="the registry of this store"),
    Check(
        name="catalog", look=check_catalog, needs=(*_BOTH, "ownership"), expected="a catalog that can be read"
    ),
    Check(name="records", look=check_records, needs=_BOTH, expected="publications that can be read"),
    Check(name="tokens", look=check_tokens, needs=("store",), expected="tokens that can be read"),
    Check(name="audit log", look=check_audit, needs=("store",), expected="a chain without a gap"),
    Check(name="spool", look=check_spool, expected="a folder that can be read"),
    Check(name="Ray", look=check_ray, expected="a cluster that answers, or none named"),
    Check(name="device", look=check_device, expected="a torch that works"),
    Check(name="backbone", look=check_backbones, expected="weights that can be loaded"),
    Check(name="endpoint", look=check_endpoint, expected="an endpoint that is ready"),
)
