"""Mutated images of every format through the decoder, or through a server: no crash, no hang, no internal error.

    python benchmarks/mutate.py [--images 1000000] [--seed 1] [--photo FILE] [--failures FOLDER]
    python benchmarks/mutate.py --requests 50000 [--model TAG] [--seed 1] [--photo FILE]

An image follows from the seed and its number alone. One that fails (see `mutated_decoding`) is made smaller and written
to the folder. Without the check of the palette in trainer/images/decode.py, 8 of the first 3,000 fail.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import psutil
from hardware import hardware
from mutated_decoding import Mutator, decode_all, minimized
from mutated_requests import send_all
from PIL import Image
from seed_images import drawn
from serve import Server, serving

from trainer.artifact import store

PHOTO_SIDE = 48  # of the longer side


def run_decoder(mutator: Mutator, count: int, folder: Path) -> int:
    """Decode `count` images and print the results; returns the number of failures."""
    start = time.perf_counter()
    outcome = decode_all(mutator, range(count))
    seconds = time.perf_counter() - start
    print(f"{count:,} images in {seconds:.0f} s: {dict(outcome.counts)}; {len(outcome.failures)} failures", flush=True)
    for number, reason in outcome.failures.items():
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{number}.bin"
        file.write_bytes(minimized(mutator(number)))
        print(f"image {number}: {reason}; {file}, {file.stat().st_size} bytes", flush=True)
    return len(outcome.failures)


def run_server(server: Server, model: store.StoredModel, mutator: Mutator, count: int) -> int:
    """Send `count` requests and print the results; returns the number of failures."""
    start, good = time.perf_counter(), mutator.originals[0]
    answers = send_all(server.port, psutil.Process(server.process.pid), model, mutator, good, count)
    print(f"{count:,} requests in {time.perf_counter() - start:.0f} s: {dict(sorted(answers.statuses.items()))}")
    print(*(answers.failures or ["no failures"]), sep="\n", flush=True)
    return len(answers.failures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, help="instead: send so many requests to a server")
    parser.add_argument("--model", help="tag in the model store (default: the newest)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--photo", type=Path, help="shown by the images (default: a drawn one)")
    parser.add_argument("--failures", type=Path, default=Path("failures"), help="folder for the images that fail")
    options = parser.parse_args()
    photo = Image.open(options.photo).convert("RGB") if options.photo else drawn()
    photo.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    mutator = Mutator(options.seed, photo)
    print(f"{hardware()}, seed {options.seed}", flush=True)
    if options.requests:
        model = store.find(options.model)
        with serving("trainer", model) as server:
            failures = run_server(server, model, mutator, options.requests)
    else:
        failures = run_decoder(mutator, options.images, options.failures)
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
