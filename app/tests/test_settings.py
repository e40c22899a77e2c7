from __future__ import annotations

import pytest

from flask_vantage import Settings, SettingsError


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.span_schedule_delay_ms == 1000
    assert settings.max_body_bytes is None
    assert settings.trusted_proxies == ()


def test_empty_values_count_as_unset() -> None:
    assert Settings.from_environment({"PORT": " ", "OTEL_TRACES_SAMPLER": ""}) == Settings()


def test_values_are_read() -> None:
    settings = Settings.from_environment(
        {
            "OTEL_SERVICE_NAME": "till",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4318",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "VANTAGE_LOG_LEVEL": "debug",
            "VANTAGE_TELEMETRY": "off",
            "PORT": "8080",
            "VANTAGE_TRUSTED_PROXIES": "172.29.0.1, 10.0.0.0/8 fd00::/8",
        }
    )
    assert settings.service_name == "till"
    assert settings.export_endpoint == "http://jaeger:4318/v1/traces"
    assert settings.span_schedule_delay_ms == 200
    assert settings.log_level == "DEBUG"
    assert settings.telemetry is False
    assert settings.port == 8080
    assert [str(network) for network in settings.trusted_proxies] == ["172.29.0.1/32", "10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_standard_variables_switch_the_export_off(off: dict[str, str]) -> None:
    assert Settings.from_environment(off).export_spans is False


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "9" * 30),
        ("VANTAGE_THREADS", "0"),
        ("VANTAGE_THREADS", "8.5"),
        ("VANTAGE_CONNECTION_LIMIT", "-1"),
        ("VANTAGE_MAX_BODY_BYTES", "1MiB"),
        ("VANTAGE_TRUSTED_PROXIES", "caddy"),
        ("VANTAGE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("VANTAGE_STOP_TIMEOUT", "nan"),
        ("VANTAGE_STOP_TIMEOUT", "soon"),
        ("VANTAGE_TELEMETRY", "maybe"),
        ("VANTAGE_LOG_LEVEL", "LOUD"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift"),
        ("VANTAGE_TUNE_GC", "maybe"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1s"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "production"),
    ],
)
def test_invalid_value_names_variable_value_and_fix(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: value})
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable}: ")
    assert value[:12] in caught.value.reason
    assert caught.value.fix.startswith("Use ")


@pytest.mark.parametrize("ratio", ["1.5", "-0.1", "nan", "half"])
def test_sampler_ratio_out_of_range_is_an_error(ratio: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG"):
        Settings.from_environment({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio})


@pytest.mark.parametrize(
    ("environment", "protocol", "endpoint"),
    [
        ({}, "http/protobuf", "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc", "http://localhost:4317"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http/protobuf",
            "http://localhost:4318/v1/traces",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "GRPC"}, "grpc", "http://localhost:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/base/"}, "http/protobuf", "http://c/base/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/own"},
            "http/protobuf",
            "http://c/own",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317"},
            "grpc",
            "https://c:4317",
        ),
    ],
)
def test_protocol_and_endpoint_follow_the_otlp_specification(
    environment: dict[str, str], protocol: str, endpoint: str
) -> None:
    settings = Settings.from_environment(environment)
    assert (settings.export_protocol, settings.export_endpoint) == (protocol, endpoint)


@pytest.mark.parametrize(("protocol", "port"), [("http/protobuf", "4318"), ("grpc", "4317")])
def test_invalid_endpoint_shows_the_port_of_the_protocol(protocol: str, port: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_EXPORTER_OTLP_ENDPOINT": "jaeger"})
    assert caught.value.variable == "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert f"http://jaeger:{port}" in caught.value.fix


def test_invalid_address_for_traces_is_shown_with_its_path() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "jaeger"})
    assert "http://jaeger:4318/v1/traces" in caught.value.fix
