"""Settings, read once from the environment and checked before anything starts."""

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

_ON = ("on", "true", "yes", "1")
_OFF = ("off", "false", "no", "0")


class SettingsError(ValueError):
    """A setting that cannot be used; the text names the variable, the reason and the fix."""

    def __init__(self, variable: str, reason: str, fix: str) -> None:
        super().__init__(f"{variable}: {reason}. {fix}.")
        self.variable = variable
        self.reason = reason
        self.fix = fix


def require_http_url(variable: str, value: str, example: str) -> SplitResult:
    """The parts of an http(s) URL.

    Raises:
        SettingsError: The value of `variable` is none; the text shows `example`.
    """
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(variable, f"{value!r} is not an http(s) URL", f"Use e.g. {example}")
    return parts


@dataclass(frozen=True)
class Settings:
    """What `Vantage` and `vantage-serve` need to know.

    Times are in seconds and sizes in bytes unless a name says otherwise.
    """

    service_name: str | None = None
    telemetry: bool = True
    log_level: str = "INFO"
    export_spans: bool = True
    span_schedule_delay_ms: int = 1000
    span_queue_size: int = 4096
    span_batch_size: int = 512
    export_timeout: float | None = 5.0
    export_endpoint: str = "http://localhost:4318"
    max_body_bytes: int = 1024 * 1024
    host: str = "0.0.0.0"
    port: int = 8000
    threads: int = 8
    connection_limit: int = 200
    stop_timeout: float = 20.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings found in `environment` (the process's own by default).

        An empty value counts as unset, as OpenTelemetry's specification has it.
        Raises `SettingsError` for the first value that cannot be used.
        """
        read = _Reader(os.environ if environment is None else environment)
        read.choice("OTEL_TRACES_SAMPLER", SAMPLERS, "parentbased_always_on")
        if (read.text("OTEL_TRACES_SAMPLER") or "").endswith("traceidratio"):
            read.number("OTEL_TRACES_SAMPLER_ARG", 1.0, 0.0, 1.0)
        for variable in ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"):
            read.choice(variable, ("http/protobuf",), "http/protobuf")
        read.resource_attributes()
        queue_size = read.integer("OTEL_BSP_MAX_QUEUE_SIZE", cls.span_queue_size, 1, 1_000_000)
        batch_size = read.integer(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(cls.span_batch_size, queue_size), 1, 100_000
        )
        if batch_size > queue_size:
            raise SettingsError(
                "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                f"{batch_size} is more than the queue holds ({queue_size})",
                "Set it to at most OTEL_BSP_MAX_QUEUE_SIZE",
            )
        exporter = read.choice("OTEL_TRACES_EXPORTER", ("otlp", "none"), "otlp")
        return cls(
            service_name=read.text("OTEL_SERVICE_NAME"),
            telemetry=read.switch("VANTAGE_TELEMETRY", True),
            log_level=read.choice("VANTAGE_LOG_LEVEL", LOG_LEVELS, cls.log_level, upper=True),
            export_spans=exporter == "otlp" and not read.switch("OTEL_SDK_DISABLED", False),
            span_schedule_delay_ms=read.integer(
                "OTEL_BSP_SCHEDULE_DELAY", cls.span_schedule_delay_ms, 1, 600_000
            ),
            span_queue_size=queue_size,
            span_batch_size=batch_size,
            export_timeout=read.export_timeout(cls.export_timeout),
            export_endpoint=read.endpoint(cls.export_endpoint),
            max_body_bytes=read.integer(
                "VANTAGE_MAX_BODY_BYTES", cls.max_body_bytes, 1, 1024 * 1024 * 1024
            ),
            host=read.text("VANTAGE_HOST") or cls.host,
            port=read.integer("PORT", cls.port, 1, 65535),
            threads=read.integer("VANTAGE_THREADS", cls.threads, 1, 256),
            connection_limit=read.integer(
                "VANTAGE_CONNECTION_LIMIT", cls.connection_limit, 1, 10_000
            ),
            stop_timeout=read.number("VANTAGE_STOP_TIMEOUT", cls.stop_timeout, 2.0, 600.0),
        )


class _Reader:
    """Reads single variables and turns what cannot be used into a `SettingsError`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, variable: str) -> str | None:
        return self._environment.get(variable, "").strip() or None

    def choice(
        self, variable: str, allowed: tuple[str, ...], default: str, *, upper: bool = False
    ) -> str:
        value = self.text(variable)
        if value is None:
            return default
        value = value.upper() if upper else value.lower()
        if value not in allowed:
            raise SettingsError(
                variable, f"{value!r} is not supported", f"Use one of: {', '.join(allowed)}"
            )
        return value

    def switch(self, variable: str, default: bool) -> bool:
        value = self.text(variable)
        if value is None:
            return default
        if value.lower() in _ON:
            return True
        if value.lower() in _OFF:
            return False
        raise SettingsError(variable, f"{value!r} is neither on nor off", "Use on or off")

    def integer(self, variable: str, default: int, low: int, high: int) -> int:
        value = self.text(variable)
        if value is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise SettingsError(
                variable, f"{value!r} is not a whole number", f"Use {low} to {high}"
            )
        return int(self._bounded(variable, int(value), low, high))

    def number(self, variable: str, default: float, low: float, high: float) -> float:
        value = self.text(variable)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            raise SettingsError(
                variable, f"{value!r} is not a number", f"Use {low:g} to {high:g}"
            ) from None
        return self._bounded(variable, number, low, high)

    def _bounded(self, variable: str, number: float, low: float, high: float) -> float:
        # Written so that NaN, which compares false with everything, is refused too.
        if not low <= number <= high:
            raise SettingsError(variable, f"{number:g} is out of range", f"Use {low:g} to {high:g}")
        return number

    def endpoint(self, default: str) -> str:
        general, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        for variable in (traces, general):
            value = self.text(variable)
            if value is None:
                continue
            require_http_url(variable, value, "http://jaeger:4318")
            return value
        return default

    def export_timeout(self, default: float | None) -> float | None:
        # None leaves the value to the exporter, which reads the variable itself.
        for variable in ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"):
            if self.text(variable) is not None:
                self.number(variable, 0.0, 0.001, 600.0)
                return None
        return default

    def resource_attributes(self) -> None:
        for pair in (self.text("OTEL_RESOURCE_ATTRIBUTES") or "").split(","):
            key, equals, _ = pair.partition("=")
            if pair.strip() and not (equals and key.strip()):
                raise SettingsError(
                    "OTEL_RESOURCE_ATTRIBUTES",
                    f"{pair.strip()!r} is not key=value",
                    "Use e.g. deployment.environment.name=prod,service.version=1.2",
                )
