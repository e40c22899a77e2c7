"""Settings: read once from environment variables and validated before anything starts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# The names of https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)

# https://opentelemetry.io/docs/specs/otel/protocol/exporter/ (http/json is not implemented in Python.)
PROTOCOLS = ("http/protobuf", "grpc")

_ON = ("on", "true", "yes", "1")
_OFF = ("off", "false", "no", "0")


class SettingsError(ValueError):
    """An invalid setting. The attributes `variable`, `reason` and `fix` make up its text."""

    def __init__(self, variable: str, reason: str, fix: str) -> None:
        super().__init__(f"{variable}: {reason}. {fix}.")
        self.variable = variable
        self.reason = reason
        self.fix = fix


def require_http_url(variable: str, value: str, example: str) -> SplitResult:
    """Return the parts of the http(s) URL that `variable` holds; raises `SettingsError`, which shows `example`."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(variable, f"invalid URL: {value!r} (http or https)", f"Use e.g. {example}")
    return parts


@dataclass(frozen=True)
class Settings:
    """The settings of `Vantage` and `vantage-serve`.

    Times are in seconds and sizes in bytes unless a name says otherwise. docs/api.md lists each field with its
    environment variable and range.
    """

    service_name: str | None = None
    telemetry: bool = True
    log_level: str = "INFO"
    export_spans: bool = True
    span_schedule_delay_ms: int = 1000
    span_queue_size: int = 4096
    span_batch_size: int = 512
    export_timeout: float | None = 5.0
    export_protocol: str = "http/protobuf"
    export_endpoint: str = "http://localhost:4318/v1/traces"
    max_body_bytes: int = 1024 * 1024
    host: str = "0.0.0.0"
    port: int = 8000
    threads: int = 8
    connection_limit: int = 200
    stop_timeout: float = 20.0
    tune_gc: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings in `environment` (default: `os.environ`); an empty value counts as unset.

        Raises `SettingsError` for the first invalid value.
        """
        read = _Reader(os.environ if environment is None else environment)
        read.choice("OTEL_TRACES_SAMPLER", SAMPLERS, "parentbased_always_on")
        if (read.text("OTEL_TRACES_SAMPLER") or "").endswith("traceidratio"):
            read.number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0, 1.0)
        general = read.choice("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOLS, cls.export_protocol)
        protocol = read.choice("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", PROTOCOLS, general)
        read.resource_attributes()
        queue_size = read.integer("OTEL_BSP_MAX_QUEUE_SIZE", cls.span_queue_size, 1, 1_000_000)
        batch_size = read.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(cls.span_batch_size, queue_size), 1, 100_000)
        if batch_size > queue_size:
            raise SettingsError(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                f"larger than the queue: {batch_size} (1 to {queue_size})",
                "Use at most the value of OTEL_BSP_MAX_QUEUE_SIZE",
            )
        exporter = read.choice("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp")
        return cls(
            service_name=read.text("OTEL_SERVICE_NAME"),
            telemetry=read.switch("VANTAGE_TELEMETRY", True),
            log_level=read.choice("VANTAGE_LOG_LEVEL", LOG_LEVELS, cls.log_level, upper=True),
            export_spans=exporter == "otlp" and not read.switch("OTEL_SDK_DISABLED", False),
            span_schedule_delay_ms=read.integer("OTEL_BSP_SCHEDULE_DELAY", cls.span_schedule_delay_ms, 1, 600_000),
            span_queue_size=queue_size,
            span_batch_size=batch_size,
            export_timeout=read.export_timeout(cls.export_timeout),
            export_protocol=protocol,
            export_endpoint=read.endpoint(protocol),
            max_body_bytes=read.integer("VANTAGE_MAX_BODY_BYTES", cls.max_body_bytes, 1, 1024 * 1024 * 1024),
            host=read.text("VANTAGE_HOST") or cls.host,
            port=read.integer("PORT", cls.port, 1, 65535),
            threads=read.integer("VANTAGE_THREADS", cls.threads, 1, 256),
            connection_limit=read.integer("VANTAGE_CONNECTION_LIMIT", cls.connection_limit, 1, 10_000),
            stop_timeout=read.number("VANTAGE_STOP_TIMEOUT", cls.stop_timeout, 2.0, 600.0),
            tune_gc=read.switch("VANTAGE_TUNE_GC", cls.tune_gc),
        )


class _Reader:
    """Reads single variables; raises `SettingsError` for an invalid value."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, variable: str) -> str | None:
        return self._environment.get(variable, "").strip() or None

    def choice(self, variable: str, allowed: tuple[str, ...], default: str, *, upper: bool = False) -> str:
        value = self.text(variable)
        if value is None:
            return default
        value = value.upper() if upper else value.lower()
        if value not in allowed:
            raise SettingsError(variable, f"unknown value: {value!r} ({', '.join(allowed)})", "Use one of these")
        return value

    def switch(self, variable: str, default: bool) -> bool:
        value = self.text(variable)
        if value is None:
            return default
        if value.lower() in _ON:
            return True
        if value.lower() in _OFF:
            return False
        raise SettingsError(variable, f"not a switch: {value!r} (on, off)", "Use on or off")

    def integer(self, variable: str, default: int, low: int, high: int) -> int:
        return int(self.number(variable, default, low, high, r"-?[0-9]{1,18}", "a whole number"))

    def number(
        self, variable: str, default: float, low: float, high: float, form: str = ".*", kind: str = "a number"
    ) -> float:
        value = self.text(variable)
        if value is None:
            return default
        allowed, fix = f"({low:.12g} to {high:.12g})", f"Use e.g. {default:.12g}"
        try:
            number = float(value) if re.fullmatch(form, value) else None
        except ValueError:
            number = None
        if number is None:
            raise SettingsError(variable, f"not {kind}: {value!r} {allowed}", fix)
        # Written so that NaN, which compares false with everything, fails as well.
        if not low <= number <= high:
            raise SettingsError(variable, f"out of range: {value} {allowed}", fix)
        return number

    def endpoint(self, protocol: str) -> str:
        """Return the URL that spans are sent to.

        The rules for the path are those of
        https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
        """
        general, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        example = f"http://jaeger:{4317 if protocol == 'grpc' else 4318}"
        if value := self.text(traces):
            require_http_url(traces, value, example if protocol == "grpc" else f"{example}/v1/traces")
            return value
        base = self.text(general) or example.replace("jaeger", "localhost")
        require_http_url(general, base, example)
        return base if protocol == "grpc" else f"{base.rstrip('/')}/v1/traces"

    def export_timeout(self, default: float | None) -> float | None:
        # With None the exporter reads the variable itself.
        for variable in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
            if self.text(variable) is not None:
                self.number(variable, 5.0, 0.001, 600.0)
                return None
        return default

    def resource_attributes(self) -> None:
        for pair in (self.text("OTEL_RESOURCE_ATTRIBUTES") or "").split(","):
            key, equals, _ = pair.partition("=")
            if pair.strip() and not (equals and key.strip()):
                raise SettingsError(
                    "OTEL_RESOURCE_ATTRIBUTES",
                    f"not a key=value pair: {pair.strip()!r}",
                    "Use e.g. deployment.environment.name=prod,service.version=1.2",
                )
