from __future__ import annotations

import pytest

from trainer.serving.settings import Settings, read_settings


def test_defaults() -> None:
    settings = read_settings({}, {})
    assert settings == Settings()
    assert (settings.engine, settings.workers, settings.queue_length, settings.deadline_ms) == ("litert", 1, 256, 1000)


def test_an_argument_wins_over_the_environment() -> None:
    environment = {"TRAINER_WORKERS": "3", "TRAINER_DEADLINE_MS": "250", "TRAINER_MODEL": "", "TRAINER_CACHE_DIR": "x"}
    settings = read_settings({"workers": "2", "model": None}, environment)
    assert (settings.workers, settings.deadline_ms, settings.model) == (2, 250, None)


@pytest.mark.parametrize(
    ("arguments", "environment", "parts"),
    [
        ({"modle": "mnist"}, {}, ["--arg modle", "queue_length"]),
        ({"workers": "two"}, {}, ["--arg workers: 'two'"]),
        ({"threads": "0"}, {}, ["--arg threads: '0'", "greater than or equal to 1"]),
        ({}, {"TRAINER_ENGINE": "onnx"}, ["TRAINER_ENGINE: 'onnx'", "litert"]),
        ({}, {"TRAINER_DEADLINE_MS": "-1"}, ["TRAINER_DEADLINE_MS: '-1'"]),
        ({"watch_s": "-1"}, {}, ["--arg watch_s: '-1'"]),
        (
            {"watch_s": "2"},
            {"TRAINER_MODEL": "photos:abc"},
            ["--arg watch_s: '2' is wrong: the model photos:abc is one version", "photos would be the promoted one"],
        ),
        ({"log_json": "maybe"}, {}, ["--arg log_json: 'maybe'"]),
        (
            {},
            {"TRAINER_CORS_ORIGINS": "*,app.example"},
            ["TRAINER_CORS_ORIGINS: ", "'app.example' is no origin", "SCHEME://"],
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(
    arguments: dict[str, str], environment: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=parts[0]) as caught:
        read_settings(arguments, environment)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [None, "photos", "photos:latest"])
def test_the_store_is_watched_for_a_name(model: str | None) -> None:
    assert read_settings({"watch_s": "1.5", "model": model}, {}).watch_s == 1.5
    assert read_settings({"watch_s": "0", "model": "photos:abc"}, {}).watch_s == 0


def test_origins_are_as_browsers_send_them() -> None:
    good = "http://localhost:8080, https://app.example,capacitor://localhost,http://[::1]:3000"
    assert read_settings({"cors_origins": good}, {}).cors_origins == tuple(good.replace(" ", "").split(","))
    assert read_settings({}, {"TRAINER_CORS_ORIGINS": "*"}).cors_origins == ("*",)
    for wrong in (
        *("", "null", "app.example", "//a.example", "https://A.example", "https://*.example", "http://a b"),
        *("https://a.example/", "https://a.example/app", "https://a.example,"),
        *("https://a.example:443", "http://a.example:80"),  # browsers leave these out
    ):
        with pytest.raises(ValueError, match=r"--arg cors_origins: .* is no origin"):
            read_settings({"cors_origins": wrong}, {})
