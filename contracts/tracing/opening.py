"""Opens the tracing of a process as its settings say. Imports OpenTelemetry only where it is on."""

from __future__ import annotations

from contracts.errors import SettingsError
from contracts.settings import SharedSettings
from contracts.tracing.tracing import NO_TRACING, Tracing


def open_tracing(settings: SharedSettings, service: str, instance: str | None = None) -> Tracing:
    """Return what writes the spans of this process.

    Args:
        service: `service.name`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES have one.
        instance: `service.instance.id`, such as a worker's name.

    Raises:
        SettingsError: the packages are missing, or a variable of OpenTelemetry cannot be used.
    """
    if settings.tracing == "off":
        return NO_TRACING
    try:
        from contracts.tracing.open_telemetry import exporting

        return exporting(service, instance)
    except ImportError:
        raise SettingsError(
            "DARKROOM_TRACING=on needs the packages opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http: "
            "pip install 'darkroom[tracing]'"
        ) from None
    except ValueError as error:
        raise SettingsError(f"DARKROOM_TRACING=on: {error}") from None
