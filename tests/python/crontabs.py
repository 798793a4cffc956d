"""An operator made with kopf: writes into the status of each CronTab what its spec wants.

usage: KUBECONFIG=FILE kopf run --standalone --namespace=default crontabs.py
"""

import kopf


@kopf.on.startup()
def configure(settings, **_):
    # A retry after a moment, not after a minute: leaders die while this runs.
    settings.networking.error_backoffs = [0.2] * 100
    settings.posting.enabled = False


@kopf.on.create("stable.example.com", "v1", "crontabs")
@kopf.on.update("stable.example.com", "v1", "crontabs", field="spec")
@kopf.on.resume("stable.example.com", "v1", "crontabs")
def set_replicas(spec, patch, **_):
    patch.status["replicas"] = spec["replicas"]


@kopf.on.delete("stable.example.com", "v1", "crontabs")
def let_go(name, logger, **_):
    logger.info(f"{name} is let go")
