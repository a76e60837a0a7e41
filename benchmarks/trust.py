"""What a stored model's probabilities and its `known` are worth, and what they cost; prints three tables.

    python benchmarks/trust.py MODEL --elsewhere SPEC [SPEC ...] [--data-dir DIR]

`MODEL` is measured on its own test images. Images from elsewhere are those of the data sets named (at most 400 of each,
of all classes), noise of four sizes, and pieces of the photos that scikit-learn carries. Probabilities that are right
are off by chance, the more the fewer images there are: the first table has that, too (labels drawn from them).
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
from trainer.artifact.engine import NOVELTY, PROBABILITIES, LiteRTEngine, Outputs, load_engine
from trainer.artifact.prediction import DECIMALS, known
from trainer.data import load, load_undivided
from trainer.data.sources.spec import open_source
from trainer.evaluate import predict_split
from trainer.export.freeze import convert, freeze, save_frozen
from trainer.features.ood import REFERENCES, fit_novelty
from trainer.images.decode import decode
from trainer.images.pixels import PixelSpec
from trainer.machine import evaluation_batch
from trainer.models import build
from trainer.models.efficientnet_lite0 import EFFICIENTNET_LITE0
from trainer.reporting.metrics import evaluate, judge_trust

MOST = 400  # images of a data set
DRAWS = 100
PASSED = 0.95  # of the model's own test images
RUNS = 300


def strangers(pixels: PixelSpec, specs: list[str], data_dir: Path | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name, and images uint8 [N,H,W,C], of each kind from elsewhere."""
    generator = np.random.default_rng(0)
    for spec in specs:
        source = open_source(spec, data_dir, to_learn=False)
        images = load_undivided(source, pixels)
        yield source.spec, images.read(generator.permutation(len(images))[:MOST])
    noise = [generator.integers(0, 256, (side, side, 3), np.uint8) for side in (28, 64, 160, 300) for _ in range(25)]
    yield "noise", np.stack([_decoded(image, pixels) for image in noise])
    yield "pieces of two photos", np.stack([_decoded(image, pixels) for image in _pieces(generator)])


def _pieces(generator: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
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


def answer(engine: LiteRTEngine, images: NDArray[np.uint8]) -> Outputs:
    batch = evaluation_batch(*images.shape[1:3])
    parts = [engine.predict(images[start : start + batch]) for start in range(0, len(images), batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def chance_error(probabilities: NDArray[np.float32]) -> list[float]:
    """The calibration error where every probability is right, sorted, of DRAWS draws of the labels."""
    generator = np.random.default_rng(0)
    likely = probabilities.cumsum(1)
    drawn = ((likely > generator.random((len(likely), 1))).argmax(1).astype(np.int32) for _ in range(DRAWS))
    return sorted(evaluate(labels, probabilities).calibration_error for labels in drawn)


def novelty_cost() -> dict[int, float]:
    """Batch → how much longer (share of the time) the default network takes with a novelty than without."""
    model = build(EFFICIENTNET_LITE0.name, input_shape=(160, 160, 3), classes=10, dropout=0.0, kernel_size=3)
    features = np.random.default_rng(0).random((REFERENCES, 1280), np.float32)
    engines = []
    with tempfile.TemporaryDirectory() as place:
        for index, novelty in enumerate((None, fit_novelty(features, features[:300] + 0.1))):
            folder = Path(place) / str(index)
            save_frozen(freeze(model, 1.0, novelty, EFFICIENTNET_LITE0.features), folder)
            (folder / "model.tflite").write_bytes(convert(folder, quantize=False))
            engines.append(LiteRTEngine(folder / "model.tflite"))
    longer = {}
    for batch in (1, 8):
        images = np.random.default_rng(0).integers(0, 256, (batch, 160, 160, 3), np.uint8)
        seconds: list[list[float]] = [[], []]
        for _ in range(RUNS):
            for engine, times in zip(engines, seconds, strict=True):
                start = time.perf_counter()
                engine.predict(images)
                times.append(time.perf_counter() - start)
        without, with_it = (statistics.median(times) for times in seconds)
        longer[batch] = with_it / without - 1
    return longer


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
    own = predict_split(engine, test, "own test images")
    trust = judge_trust(test.labels, own, loaded.temperature, loaded.threshold)
    after = evaluate(test.labels, own[PROBABILITIES])
    chance = chance_error(own[PROBABILITIES])
    print(f"\n{stored.tag} on its {len(test)} test images; temperature {loaded.temperature:.2f}, ", end="")
    print(f"threshold {loaded.threshold:.3f}\n\n| calibration error % | before | after | of perfect probabilities |")
    print("|---|---|---|---|")
    middle, high = chance[DRAWS // 2], chance[round(0.95 * DRAWS)]
    print(
        f"| | {trust.uncalibrated_error:.1%} | {after.calibration_error:.1%} | {middle:.1%}, 1 in 20 over {high:.1%} |"
    )
    share = "none" if trust.known_accuracy is None else f"{trust.known_accuracy:.1%}"
    print(f"\nknown: {trust.known_share:.1%} of them, of which {share} are right; of all {after.accuracy:.1%}")
    if NOVELTY not in own:
        return
    limit = float(np.quantile(own[NOVELTY], PASSED, method="higher"))
    passed = float((own[NOVELTY] <= limit).mean())
    print(
        f"\n| images from elsewhere | n | novelty alone, {passed:.1%} of its own passed: refused % | `known` false % |"
    )
    print("|---|---|---|---|")
    refused = []
    for name, images in strangers(loaded.pixels, options.elsewhere, options.data_dir):
        outputs = answer(engine, images)
        novel = outputs[NOVELTY] > limit
        told = outputs[PROBABILITIES].max(1).astype(np.float64).round(DECIMALS)
        unknown = ~known(told, outputs[NOVELTY], loaded.threshold)
        refused.append((novel, unknown))
        print(f"| {name} | {len(images)} | {100 * novel.mean():.1f} | {100 * unknown.mean():.1f} |", flush=True)
    novel, unknown = (np.concatenate(parts) for parts in zip(*refused, strict=True))
    print(f"| all | {len(novel)} | {100 * novel.mean():.1f} | {100 * unknown.mean():.1f} |", flush=True)
    print("\n| batch | longer with novelty % (medians of runs in turn) |\n|---|---|")
    for batch, longer in novelty_cost().items():
        print(f"| {batch} | {100 * longer:.1f} |", flush=True)


if __name__ == "__main__":
    main()
