from __future__ import annotations

import pytest

from flask_vantage import Settings, SettingsError


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.span_schedule_delay_ms == 1000
    assert settings.max_body_bytes == 1024 * 1024


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
        }
    )
    assert settings.service_name == "till"
    assert settings.export_endpoint == "http://jaeger:4318"
    assert settings.span_schedule_delay_ms == 200
    assert settings.log_level == "DEBUG"
    assert settings.telemetry is False
    assert settings.port == 8080


def test_the_traces_endpoint_goes_before_the_general_one() -> None:
    settings = Settings.from_environment(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://general:4318",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces/v1/traces",
        }
    )
    assert settings.export_endpoint == "https://traces/v1/traces"


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_export_can_be_switched_off_the_standard_ways(off: dict[str, str]) -> None:
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
        ("VANTAGE_STOP_TIMEOUT", "nan"),
        ("VANTAGE_STOP_TIMEOUT", "soon"),
        ("VANTAGE_TELEMETRY", "maybe"),
        ("VANTAGE_LOG_LEVEL", "LOUD"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "jaeger:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "never"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1s"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "5000"),
        ("OTEL_RESOURCE_ATTRIBUTES", "production"),
    ],
)
def test_a_bad_value_names_variable_value_and_fix(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({variable: value})
    assert caught.value.variable == variable
    assert str(caught.value).startswith(f"{variable}: ")
    assert caught.value.reason
    assert caught.value.fix.startswith(("Use ", "Set "))


@pytest.mark.parametrize("ratio", ["1.5", "-0.1", "nan", "half"])
def test_a_sampler_ratio_out_of_range_is_refused(ratio: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_TRACES_SAMPLER_ARG"):
        Settings.from_environment(
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
        )
