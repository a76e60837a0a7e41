"""Calibration of a stored model, selective prediction by `known`, and their cost; prints three tables.

    python benchmarks/trust.py MODEL --elsewhere SPEC [SPEC ...] [--data-dir DIR]

`MODEL` is measured on its own test images. Out-of-distribution images are those of the data sets named (at most 400 of
each, of all classes), noise of four sizes, and crops of the photos in scikit-learn. Perfect probabilities have a
calibration error, too, by chance: the first table has it (from labels drawn by the probabilities).
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from hardware import hardware
from numpy.typing import NDArray
from PIL import Image

from trainer import artifact
from trainer.artifact import store
from trainer.artifact.engine import OOD_SCORE, PROBABILITIES, LiteRTEngine, Outputs, load_engine
from trainer.artifact.prediction import DECIMALS, is_known
from trainer.data import load, load_undivided
from trainer.data.batches import inference_batch_size, predict_batches
from trainer.data.sources.spec import open_source
from trainer.export.freeze import convert, freeze, save_frozen
from trainer.features.ood import REFERENCES, fit_ood_score
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec
from trainer.models import build
from trainer.models.efficientnet_lite import EFFICIENTNET_LITE0
from trainer.reporting.metrics import evaluate, measure_trust

MAX_IMAGES = 400  # of a data set
DRAWS = 100
ACCEPTED = 0.95  # of the model's own test images
RUNS = 300


def ood_images(pixels: PixelSpec, specs: list[str], data_dir: Path | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and images, uint8 [N,H,W,C], of each kind of out-of-distribution image."""
    generator = np.random.default_rng(0)
    for spec in specs:
        source = open_source(spec, data_dir, for_training=False)
        images = load_undivided(source, pixels)
        yield source.spec, images.read(generator.permutation(len(images))[:MAX_IMAGES])
    noise = [generator.integers(0, 256, (side, side, 3), np.uint8) for side in (28, 64, 160, 300) for _ in range(25)]
    yield "noise", np.stack([_decoded(image, pixels) for image in noise])
    yield "crops of two photos", np.stack([_decoded(image, pixels) for image in _crops(generator)])


def _crops(generator: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    from sklearn.datasets import load_sample_image

    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        yield photo
        for _ in range(30):
            side = int(generator.integers(120, 400))
            top, left = (int(generator.integers(0, length - side)) for length in photo.shape[:2])
            yield photo[top : top + side, left : left + side]


def _decoded(image: NDArray[np.uint8], pixels: PixelSpec) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return decode(file.getvalue(), pixels)


def predict(engine: LiteRTEngine, images: NDArray[np.uint8]) -> Outputs:
    batch = inference_batch_size(*images.shape[1:3])
    parts = [engine.predict(images[start : start + batch]) for start in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def chance_error(probabilities: NDArray[np.float32]) -> list[float]:
    """Sorted calibration errors of perfect probabilities: DRAWS times, the labels are drawn by the probabilities."""
    generator = np.random.default_rng(0)
    cumulative = probabilities.cumsum(1)
    drawn = ((cumulative > generator.random((len(cumulative), 1))).argmax(1).astype(np.int32) for _ in range(DRAWS))
    return sorted(evaluate(labels, probabilities).calibration_error for labels in drawn)


def ood_score_cost() -> dict[int, float]:
    """Batch size → additional time of the default network with an out-of-distribution score, as a share."""
    model = build(EFFICIENTNET_LITE0.name, input_shape=(160, 160, 3), classes=10, dropout=0.0, kernel_size=3)
    features = np.random.default_rng(0).random((REFERENCES, 1280), np.float32)
    engines = []
    with tempfile.TemporaryDirectory() as folders:
        for index, ood_score in enumerate((None, fit_ood_score(features, features[:300] + 0.1))):
            folder = Path(folders) / str(index)
            save_frozen(freeze(model, 1.0, ood_score, EFFICIENTNET_LITE0.features), folder)
            (folder / "model.tflite").write_bytes(convert(folder, "float32"))
            engines.append(LiteRTEngine(folder / "model.tflite"))
    costs = {}
    for batch in (1, 8):
        images = np.random.default_rng(0).integers(0, 256, (batch, 160, 160, 3), np.uint8)
        seconds: list[list[float]] = [[], []]
        for _ in range(RUNS):
            for engine, times in zip(engines, seconds, strict=True):
                start = time.perf_counter()
                engine.predict(images)
                times.append(time.perf_counter() - start)
        without, with_score = (statistics.median(times) for times in seconds)
        costs[batch] = with_score / without - 1
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--elsewhere", nargs="+", default=[])
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    print(hardware(), flush=True)
    stored = store.find(options.model)
    loaded = artifact.load(stored.path)
    assert loaded.temperature
    assert loaded.threshold is not None
    test = load(loaded.dataset, pixels=loaded.pixels, data_dir=options.data_dir).test
    engine = load_engine(loaded)
    assert isinstance(engine, LiteRTEngine)
    own = predict_batches(engine.predict, test, "own test images")
    trust = measure_trust(test.labels, own, loaded.temperature, loaded.threshold)
    after = evaluate(test.labels, own[PROBABILITIES])
    chance = chance_error(own[PROBABILITIES])
    print(f"\n{stored.tag} on its {len(test)} test images; temperature {loaded.temperature:.2f}, ", end="")
    print(f"threshold {loaded.threshold:.3f}\n\n| calibration error % | before | after | of perfect probabilities |")
    print("|---|---|---|---|")
    median, high = chance[DRAWS // 2], chance[round(0.95 * DRAWS)]
    print(
        f"| | {trust.uncalibrated_error:.1%} | {after.calibration_error:.1%} | {median:.1%}, 1 in 20 over {high:.1%} |"
    )
    share = "none" if trust.known_accuracy is None else f"{trust.known_accuracy:.1%}"
    print(f"\nknown: {trust.known_share:.1%} of them, of which {share} are right; of all {after.accuracy:.1%}")
    if OOD_SCORE not in own:
        return
    limit = float(np.quantile(own[OOD_SCORE], ACCEPTED, method="higher"))
    accepted = float((own[OOD_SCORE] <= limit).mean())
    print(
        f"\n| out-of-distribution images | n | rejected % by the score, which accepts {accepted:.1%} of its own | "
        "`known` false % |"
    )
    print("|---|---|---|---|")
    rejections = []
    for name, images in ood_images(loaded.pixels, options.elsewhere, options.data_dir):
        outputs = predict(engine, images)
        rejected = outputs[OOD_SCORE] > limit
        probability = outputs[PROBABILITIES].max(1).astype(np.float64).round(DECIMALS)
        unknown = ~is_known(probability, outputs[OOD_SCORE], loaded.threshold)
        rejections.append((rejected, unknown))
        print(f"| {name} | {len(images)} | {100 * rejected.mean():.1f} | {100 * unknown.mean():.1f} |", flush=True)
    rejected, unknown = (np.concatenate(parts) for parts in zip(*rejections, strict=True))
    print(f"| all | {len(rejected)} | {100 * rejected.mean():.1f} | {100 * unknown.mean():.1f} |", flush=True)
    print("\n| batch | additional time of the score % (medians of alternating runs) |\n|---|---|")
    for batch, cost in ood_score_cost().items():
        print(f"| {batch} | {100 * cost:.1f} |", flush=True)


if __name__ == "__main__":
    main()
