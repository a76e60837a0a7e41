"""Security advisories: the stored ones against the locks, and how they are fetched."""

from __future__ import annotations

import functools
import http.server
import json
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from server import PROJECT, serving


def audit(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(project / "scripts" / "audit.py"), *arguments]
    return subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the script and its advisories; without locks."""
    for name in ("audit.py", "advisories.json"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(PROJECT / "scripts" / name, tmp_path / "scripts")
    return tmp_path


def write_lock(project: Path, *packages: str) -> None:
    text = "".join(f"{package} \\\n    --hash=sha256:0\n" for package in packages)
    (project / "requirements-serve.lock").write_text(text)


def test_no_lock_has_a_known_hole() -> None:
    done = audit(PROJECT)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_the_libraries_in_a_wheel_are_as_stored() -> None:
    import pillow_heif

    bundled = json.loads((PROJECT / "scripts" / "advisories.json").read_text())["bundled"]
    libraries = bundled[f"pillow-heif=={pillow_heif.__version__}"]
    assert libraries["libheif"] == pillow_heif.libheif_version()
    assert pillow_heif.libheif_info()["decoders"]["libde265"].endswith(f"version {libraries['libde265']}")


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ("Pillow==12.1.0", "pillow 12.1.0 (requirements-serve.lock): CVE-2026-25990"),
        ("pillow==12.1.1", "CVE-2026-40192"),
        ("python_multipart==0.0.26", "CVE-2026-42561"),
        ("pillow-heif==1.9.0", "not in advisories.json"),
    ],
)
def test_a_version_with_a_known_hole_is_found(project: Path, package: str, found: str) -> None:
    write_lock(project, package, "h11==0.16.0")
    done = audit(project)
    assert done.returncode == 1
    assert found in done.stdout
    assert "h11" not in done.stdout


def test_a_hole_in_a_library_of_a_wheel_is_found(project: Path) -> None:
    file = project / "scripts" / "advisories.json"
    stored = json.loads(file.read_text())
    stored["bundled"]["pi-heif==1.4.0"] = {"libheif": "1.23.0"}
    file.write_text(json.dumps(stored))
    write_lock(project, "pi-heif==1.4.0")
    assert "libheif 1.23.0 (requirements-serve.lock): CVE-2026-84383" in audit(project).stdout


def osv(name: str, advisory: str, events: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    """An advisory in the OSV format."""
    ranges = [{"type": "ECOSYSTEM", "events": events}, {"type": "GIT", "events": [{"introduced": "0"}]}]
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": ranges}
    return {"id": advisory, "summary": f"hole {advisory}", "affected": [affected]} | more


def test_fetched_advisories_replace_the_stored_ones(project: Path, tmp_path: Path) -> None:
    entries = [
        osv("Pillow", "PYSEC-1", [{"introduced": "0"}, {"fixed": "12.0"}, {"introduced": "13.0"}]),
        osv("pillow", "PYSEC-2", [{"introduced": "0"}, {"last_affected": "12.9"}]),
        osv("pillow", "PYSEC-3", [{"introduced": "0"}], withdrawn="2026-01-01T00:00:00Z"),
        osv("other", "PYSEC-4", [{"introduced": "0"}]),
        osv("bentoml", "PYSEC-5", [{"introduced": "0"}], aliases=["GHSA-2mcr-m9qx-5vwr"]),
        {"id": "MAL-6", "affected": [{"package": {"name": "h11"}, "versions": ["0.16.0", "not a version"]}]},
    ]
    (tmp_path / "www").mkdir()
    with zipfile.ZipFile(tmp_path / "www" / "all.zip", "w") as archive:
        for entry in entries:
            archive.writestr(f"{entry['id']}.json", json.dumps(entry))
    write_lock(project, "pillow==13.0.0", "bentoml==1.4.40", "h11==0.16.0")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        done = audit(project, "--update", f"http://127.0.0.1:{server.server_port}/all.zip")
        failed = audit(project, "--update", f"http://127.0.0.1:{server.server_port}/none.zip")
        server.shutdown()
        thread.join()
    found = {line.split(": ")[1] for line in done.stdout.splitlines()[:-1]}
    assert (done.returncode, found) == (1, {"PYSEC-1", "MAL-6"}), done.stderr
    stored = json.loads((project / "scripts" / "advisories.json").read_text())
    assert stored["packages"]["pillow"] == {
        "PYSEC-1": ">=0,<12.0 || >=13.0: hole PYSEC-1",
        "PYSEC-2": ">=0,<=12.9: hole PYSEC-2",
    }
    assert list(stored["packages"]["bentoml"]) == ["GHSA-2mcr-m9qx-5vwr"]
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_no_body_is_unpickled_whatever_its_type(tiny_artifact: Path, tmp_path: Path) -> None:
    """Reported against BentoML and accepted here, as the project's own API answers every path."""
    body = pickle.dumps(Payload(tmp_path / "unpickled"))
    pickle.loads(body)
    (tmp_path / "unpickled").unlink()
    with serving(tiny_artifact, tmp_path) as server:
        for path in ("/predict", "/predict_batch", "/preview", "/explain", "/__is_ready__"):
            for kind in ("application/vnd.bentoml+pickle", "Application/VND.BentoML+Pickle", "application/x-pickle"):
                assert server.ask("POST", path, body, f"{kind}; a=b").code in (
                    "unsupported_type",
                    "bad_request",
                    "not_found",
                )
    assert not (tmp_path / "unpickled").exists()
