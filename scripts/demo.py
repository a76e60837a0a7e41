"""`make demo`: fit on the built-in digits, save, serve, send one image, print the answer, stop.

It writes only under `.venv/demo`, so that the user's own model store is not touched.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

PROJECT = Path(__file__).resolve().parents[1]
HOME = PROJECT / ".venv" / "demo"
READY_TIMEOUT_S = 60


def main() -> None:
    environment = os.environ | {
        "BENTOML_HOME": str(HOME / "bentoml"),
        "TRAINER_CACHE_DIR": str(HOME / "cache"),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    binaries = Path(sys.executable).parent
    runs = HOME / "runs" / time.strftime("%Y%m%d-%H%M%S")
    fit = [
        "fit",
        "--dataset",
        "builtin:digits",
        "--epochs",
        "12",
        "--wandb",
        "disabled",
        "--run-dir",
        str(runs),
    ]
    print(f"$ trainer {' '.join(fit)}", flush=True)
    subprocess.run([str(binaries / "trainer"), *fit], env=environment, cwd=PROJECT, check=True)

    image, digit = one_digit()
    file = HOME / f"digit-{digit}.png"
    file.write_bytes(image)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    serve = ["serve", "--port", str(port)]
    print(f"$ trainer {' '.join(serve)}", flush=True)
    server = subprocess.Popen([str(binaries / "trainer"), *serve], env=environment, cwd=PROJECT)
    try:
        wait_until_ready(url, server)
        print(f"$ curl --data-binary @{file.relative_to(PROJECT)} {url}/predict", flush=True)
        answer = httpx.post(f"{url}/predict", content=image, timeout=10, trust_env=False).raise_for_status().json()
    finally:
        server.terminate()
        server.wait(30)
    print(json.dumps(answer))
    print(f"\nThe image shows a {digit}; the answer is {answer['label']!r} ({answer['probability']:.2%}).")
    print("To use this model store in your terminal:")
    print(f"  export BENTOML_HOME={HOME / 'bentoml'} PATH={binaries}:$PATH")
    print("  trainer models && trainer serve")


def one_digit() -> tuple[bytes, int]:
    """One of the built-in digits as PNG bytes, and its label."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images[7] * 255 / 16).round().astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), int(digits.target[7])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"error: trainer serve ended with exit code {server.returncode}")
        try:
            if httpx.get(f"{url}/readyz", timeout=2, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"error: {url}/readyz was not ready within {READY_TIMEOUT_S} s")


if __name__ == "__main__":
    main()
