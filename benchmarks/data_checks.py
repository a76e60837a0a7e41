"""Recall and time of the data checks on faults that are added on purpose; prints two tables.

    python benchmarks/data_checks.py SPEC [SPEC ...] [--data-dir DIR]

Wrong labels: a share of the training labels is changed at random. Duplicates (folders only): COPIES images of each kind
are re-encoded, resized, cropped, mirrored, or all of these, in a folder of links to the originals. All random draws are
seeded. The seconds are those of `run_checks` with cached features.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from hardware import hardware
from PIL import Image

from trainer.data import Dataset, load
from trainer.data.sources.base import Source
from trainer.data.sources.spec import open_source
from trainer.data_checks import embeddings
from trainer.data_checks.label_issues import find_label_issues
from trainer.data_checks.out_of_fold import out_of_fold
from trainer.data_checks.run import Findings, run_checks
from trainer.models import default_architecture

SHARES = (0.0, 0.02, 0.05, 0.1)  # of the training labels that are changed
FIRST = 0.1  # share of the ranking in which they are counted
COPIES = 200
KINDS = ("re-encoded", "resized", "cropped", "mirrored", "all of these")


def load_with_source(spec: str, data_dir: Path | None) -> tuple[Dataset, Source]:
    input_preference = lambda sizes: default_architecture(sizes, "none").input_preference  # noqa: E731
    return load(spec, data_dir=data_dir, input_preference=input_preference), open_source(spec, data_dir)


def measure_label_issues(dataset: Dataset) -> None:
    """Print a row for each share of changed labels."""
    parts = embeddings.draw_sample(dataset)
    features = embeddings.extract_features(dataset, parts)
    correct = np.concatenate([part.labels for part in parts])
    groups = np.concatenate([part.cache.near_duplicates[part.indices] for part in parts])
    classes = len(dataset.class_names)
    for share in SHARES:
        random = np.random.default_rng(0)
        changed = np.zeros(len(correct), np.bool_)
        changed[random.permutation(len(parts[0]))[: round(share * len(parts[0]))]] = True
        others = (correct + random.integers(1, classes, len(correct))) % classes
        labels = np.where(changed, others, correct).astype(np.int32)
        ranking = find_label_issues(out_of_fold(features, labels, groups, classes), labels)
        recall = changed[ranking.order[: round(FIRST * len(correct))]].sum() / max(1, int(changed.sum()))
        print(
            f"| {dataset.spec} | {len(correct):,} | {100 * share:.0f} | {100 * recall:.0f} | "
            f"{100 * ranking.noise_rate:.1f} | {len(ranking.issues)} | {changed[ranking.issues].sum()} |",
            flush=True,
        )


def add_copies(folder: Path, target: Path) -> list[tuple[str, str, str]]:
    """Fill `target` with links to the images of `folder`, and with copies: (original, copy, kind) of each copy."""
    random = np.random.default_rng(0)
    names = [Path(example.name) for example in open_source(str(folder)).examples()]
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(folder / name)
    copies = []
    for number, index in enumerate(random.permutation(len(names))[: COPIES * len(KINDS)].tolist()):
        kind = KINDS[number // COPIES]
        copy = names[index].parent / f"copy-{number:04}.jpg"
        with Image.open(folder / names[index]) as image:
            transform(image.convert("RGB"), kind, random).save(target / copy, quality=int(random.integers(50, 91)))
        copies.append((str(names[index]), str(copy), kind))
    return copies


def transform(image: Image.Image, kind: str, random: np.random.Generator) -> Image.Image:
    if kind in ("resized", "all of these"):
        scale = random.uniform(0.8, 1.2)
        image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)
    if kind in ("cropped", "all of these"):
        across, down = round(0.05 * image.width), round(0.05 * image.height)
        left, top = int(random.integers(0, across + 1)), int(random.integers(0, down + 1))
        image = image.crop((left, top, left + image.width - across, top + image.height - down))
    if kind in ("mirrored", "all of these"):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def measure_duplicates(folder: Path) -> None:
    """Print a row, and the duplicates that were there before, for a person to judge."""
    with tempfile.TemporaryDirectory() as name:
        copies = add_copies(folder, Path(name))
        dataset, source = load_with_source(name, None)
        run_checks(dataset, source)  # fills the cache of features
        start = time.perf_counter()
        findings = run_checks(dataset, source)
        seconds = time.perf_counter() - start
    names = findings.images.names
    group_of = {names[member]: number for number, group in enumerate(findings.duplicates) for member in group}
    found = [group_of.get(original, -1) == group_of.get(copy, -2) for original, copy, _ in copies]
    recalls = [
        np.mean([is_found for is_found, (_, _, of) in zip(found, copies, strict=True) if of == kind]) for kind in KINDS
    ]
    others = other_pairs(findings, {frozenset((original, copy)) for original, copy, _ in copies})
    percents = " | ".join(f"{100 * share:.1f}" for share in (*recalls, np.mean(found)))
    print(f"| {folder} | {len(names):,} | {percents} | {len(others)} | {seconds:.0f} |", flush=True)
    for first, second in others[:40]:
        print(f"  not added here: {first} and {second}")


def other_pairs(findings: Findings, added: set[frozenset[str]]) -> list[tuple[str, str]]:
    """Duplicates that were not added: the first image of a group and each other one."""
    names = findings.images.names
    pairs = [(names[group[0]], names[member]) for group in findings.duplicates for member in group[1:]]
    return [pair for pair in pairs if frozenset(pair) not in added]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    print(hardware(), flush=True)
    recall = f"recall in the first {100 * FIRST:.0f} % of the ranking, %"
    print(f"\n| data set | images | changed % | {recall} | noise rate % | label issues | of these changed |")
    print("|---|---|---|---|---|---|---|")
    for spec in options.specs:
        dataset, source = load_with_source(spec, options.data_dir)
        measure_label_issues(dataset)
        start = time.perf_counter()
        findings = run_checks(dataset, source)
        print(f"  unchanged, in {time.perf_counter() - start:.0f} s: {count_findings(findings)}")
    print(f"\n| folder | images | {' | '.join(KINDS)} | all % | other pairs found | s |")
    print("|---" * (len(KINDS) + 5) + "|")
    for spec in options.specs:
        path = Path(spec.removeprefix("folder:"))
        if path.is_dir():
            measure_duplicates(path.resolve())


def count_findings(findings: Findings) -> str:
    kinds = [image.kind for image in findings.low_quality]
    low_quality = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "no low-quality images"
    return (
        f"{len(findings.label_issues)} label issues, {len(findings.duplicates)} groups of duplicates, {low_quality}, "
        f"{findings.confusable}"
    )


if __name__ == "__main__":
    main()
