"""Settings: read once from environment variables and validated before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

# What `Vantage(app)` answers itself, and `vantage-serve` on threads of their own.
METRICS_PATH, ALIVE_PATH, READY_PATH = "/metrics", "/healthz", "/readyz"

# From the name of a variable and its text to the value; raises `SettingsError`.
Parse = Callable[[str, str], Any]


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


def _text(_: str, text: str) -> str:
    return text


def _switch(variable: str, text: str) -> bool:
    if text.lower() in ("on", "true", "yes", "1"):
        return True
    if text.lower() in ("off", "false", "no", "0"):
        return False
    raise SettingsError(variable, f"not a switch: {text!r} (on, off)", "Use on or off")


def _choice(*allowed: str) -> Parse:
    def parse(variable: str, text: str) -> str:
        for value in allowed:
            if value.lower() == text.lower():
                return value
        raise SettingsError(variable, f"unknown value: {text!r} ({', '.join(allowed)})", "Use one of these")

    return parse


def _number(kind: type[int] | type[float], low: float, high: float, fix: str = "Use one in this range") -> Parse:
    def parse(variable: str, text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = None
        # Written so that NaN, which compares false with everything, fails as well.
        if number is None or not low <= number <= high:
            problem = "not a whole number in range" if kind is int else "not a number in range"
            raise SettingsError(variable, f"{problem}: {text!r} ({low:.12g} to {high:.12g})", fix)
        return number

    return parse


def _networks(variable: str, text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = []
    for part in text.replace(",", " ").split():
        try:
            networks.append(ip_network(part))
        except ValueError as error:
            fix = "Use addresses or networks, e.g. 172.29.0.1, 10.0.0.0/8"
            raise SettingsError(variable, f"not an address or a network: {part!r} ({error})", fix) from None
    return tuple(networks)


def _resource_attributes(variable: str, text: str) -> None:
    for pair in text.split(","):
        key, equals, _ = pair.partition("=")
        if pair.strip() and not (equals and key.strip()):
            reason = f"not a key=value pair: {pair.strip()!r}"
            raise SettingsError(variable, reason, "Use e.g. deployment.environment.name=prod,service.version=1.2")


def _setting(default: Any, parse: Parse, *variables: str) -> Any:
    """Return a field that is read from the first of `variables` that is set."""
    return field(default=default, metadata={"parse": parse, "variables": variables})


@dataclass(frozen=True)
class Settings:
    """The settings of `Vantage` and `vantage-serve`.

    Times are in seconds and sizes in bytes unless a name says otherwise. docs/api.md explains each field.
    """

    service_name: str | None = _setting(None, _text, "OTEL_SERVICE_NAME")
    telemetry: bool = _setting(True, _switch, "VANTAGE_TELEMETRY")
    log_level: str = _setting(
        "INFO", _choice("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "VANTAGE_LOG_LEVEL"
    )
    export_spans: bool = True
    span_schedule_delay_ms: int = _setting(1000, _number(int, 1, 600_000), "OTEL_BSP_SCHEDULE_DELAY")
    span_queue_size: int = _setting(4096, _number(int, 1, 1_000_000), "OTEL_BSP_MAX_QUEUE_SIZE")
    span_batch_size: int = 512
    export_timeout: float = _setting(
        5.0, _number(float, 0.001, 600), "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"
    )
    export_protocol: str = _setting(
        "http/protobuf",
        _choice("http/protobuf", "grpc"),
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    )
    export_endpoint: str = "http://localhost:4318/v1/traces"
    max_body_bytes: int | None = _setting(None, _number(int, 1, 2**40), "VANTAGE_MAX_BODY_BYTES")
    host: str = _setting("0.0.0.0", _text, "VANTAGE_HOST")
    port: int = _setting(8000, _number(int, 1, 65535), "PORT")
    threads: int = _setting(8, _number(int, 1, 256), "VANTAGE_THREADS")
    connection_limit: int = _setting(1000, _number(int, 1, 10_000), "VANTAGE_CONNECTION_LIMIT")
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting((), _networks, "VANTAGE_TRUSTED_PROXIES")
    stop_timeout: float = _setting(20.0, _number(float, 2, 600), "VANTAGE_STOP_TIMEOUT")
    tune_gc: bool = _setting(True, _switch, "VANTAGE_TUNE_GC")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Return the settings in `environment` (default: `os.environ`); an empty value counts as unset.

        Raises `SettingsError` for the first invalid value.
        """
        source = os.environ if environment is None else environment

        def read(default: Any, parse: Parse, *variables: str) -> Any:
            for variable in variables:
                if text := source.get(variable, "").strip():
                    return parse(variable, text)
            return default

        values = {
            f.name: read(f.default, f.metadata["parse"], *f.metadata["variables"]) for f in fields(cls) if f.metadata
        }
        # The SDK reads these itself, and ignores an invalid value.
        samplers = ("always_on", "always_off", "traceidratio")
        sampler = read("", _choice(*samplers, *(f"parentbased_{name}" for name in samplers)), "OTEL_TRACES_SAMPLER")
        if sampler.endswith("traceidratio"):
            read(None, _number(float, 0, 1), "OTEL_TRACES_SAMPLER_ARG")
        read(None, _resource_attributes, "OTEL_RESOURCE_ATTRIBUTES")

        exporter = read("otlp", _choice("otlp", "none"), "OTEL_TRACES_EXPORTER")
        values["export_spans"] = exporter == "otlp" and not read(False, _switch, "OTEL_SDK_DISABLED")
        queue_size = values["span_queue_size"]
        values["span_batch_size"] = read(
            min(cls.span_batch_size, queue_size),
            _number(int, 1, queue_size, "Use one in this range, or raise OTEL_BSP_MAX_QUEUE_SIZE"),
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        )

        # https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp
        is_grpc = values["export_protocol"] == "grpc"
        port = 4317 if is_grpc else 4318

        def parse_url(variable: str, text: str) -> str:
            # Of the two, only the address for traces is used as it is.
            path = "/v1/traces" if "TRACES" in variable and not is_grpc else ""
            require_http_url(variable, text, f"http://jaeger:{port}{path}")
            return text

        base = read(f"http://localhost:{port}", parse_url, "OTEL_EXPORTER_OTLP_ENDPOINT")
        endpoint = base if is_grpc else f"{base.rstrip('/')}/v1/traces"
        values["export_endpoint"] = read(endpoint, parse_url, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        return cls(**values)
