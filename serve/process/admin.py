"""What the admin address is, whoever changes the models: one server its own, a supervisor those of its workers.

And what the socket is by which a supervisor looks at a worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from serve.answers.admission import Admission
from serve.process.options import ServerOptions
from serve.rpc.admin import ADMIN_SERVICE, AdminService
from serve.rpc.credentials import authorizer
from serve.rpc.services import AnyMethod
from serve.telemetry.logs import AccessLog
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry
from serve.transport.base import TransportSettings

IN_FLIGHT, SECONDS = 16, 3600.0


def admin_settings(options: ServerOptions, service: AdminService, metrics: Metrics) -> TransportSettings:
    """Settings of the transport on `--admin-address`.

    Args:
        options: Its keys and certificates.
        service: What answers there.
        metrics: Where its calls are counted.
    """
    admission = Admission(IN_FLIGHT)
    admission.open()
    return TransportSettings(
        services={ADMIN_SERVICE: service.methods()},
        admission=admission,
        limits=replace(options.limits, max_in_flight=IN_FLIGHT, max_deadline=SECONDS),
        telemetry=Telemetry(metrics, AccessLog(1.0)),
        threads=2,
        reflection=options.reflection,
        authorize=authorizer(options.admin_api_keys),
        tls=options.tls,
    )


def looking_settings(
    options: ServerOptions, services: Mapping[str, tuple[AnyMethod, ...]], unseen: Metrics
) -> TransportSettings:
    """Settings of the transport by which a supervisor looks at a worker: nothing asked there is traffic.

    Args:
        options: Of the worker; keys and certificates are the supervisor's.
        services: What looks, by full service name.
        unseen: Series that nobody reads.
    """
    admission = Admission(IN_FLIGHT)
    admission.open()
    return TransportSettings(
        services=services,
        admission=admission,
        limits=replace(options.limits, max_in_flight=IN_FLIGHT),
        telemetry=Telemetry(unseen),
        threads=2,
        reflection=False,
    )
