"""The short form of `benchmarks/soak.py`, whose longer rounds also see that the server ends patient clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from expected_answers import encoded
from soak import SETTINGS, soak
from swap import NAME
from tiny_model import export_tiny_model

from trainer.artifact import store

SEED = 3
KINDS = ("good 200", "v2 200", "pipelined 200", "mutated /predict 422", "huge 413", "endless head, ended", "cut off")

pytestmark = pytest.mark.slow


def test_a_server_is_not_worn_out(tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    print(f"seed {SEED}")
    other = export_tiny_model(tmp_path / "other", seed=2)
    tags = [store.publish(artifact, NAME) for artifact in (tiny_artifact, other)]
    report = soak(tags, encoded(), seconds=12, slow=50, seed=SEED)
    assert report.all_failures() == []
    assert min(report.counts[kind] for kind in KINDS) > 0
