"""What the data doctor finds of what was spoiled on purpose, and how long it takes; prints two tables.

    python benchmarks/doctor.py SPEC [SPEC ...] [--data-dir DIR]

Wrong labels: of the training images a share has its label changed to another one at random. Duplicates (of folders
only): COPIES pictures of each kind are saved again, scaled, cropped, mirrored, or all of that, into a folder of links
to the originals. All draws are seeded. The seconds are those of `examine` once the features are in the cache.
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
from trainer.data_checks.label_issues import find_wrong_labels
from trainer.data_checks.out_of_fold import out_of_fold
from trainer.data_checks.run import Findings, examine
from trainer.models import suggest

SHARES = (0.0, 0.02, 0.05, 0.1)  # of the training labels that are changed
FIRST = 0.1  # of the ranking, in which they are looked for
COPIES = 200
KINDS = ("saved again", "scaled", "cropped", "mirrored", "all of that")


def opened(spec: str, data_dir: Path | None) -> tuple[Dataset, Source]:
    wish = lambda sizes: suggest(sizes, "none").wish  # noqa: E731
    return load(spec, data_dir=data_dir, wish=wish), open_source(spec, data_dir)


def wrong_labels(dataset: Dataset) -> None:
    """A row for each share."""
    parts = embeddings.choose(dataset)
    features = embeddings.features_of(dataset, parts, lambda: None)
    right = np.concatenate([part.labels for part in parts])
    groups = np.concatenate([part.cache.twins[part.indices] for part in parts])
    classes = len(dataset.class_names)
    for share in SHARES:
        draw = np.random.default_rng(0)
        spoiled = np.zeros(len(right), np.bool_)
        spoiled[draw.permutation(len(parts[0]))[: round(share * len(parts[0]))]] = True
        labels = np.where(spoiled, (right + draw.integers(1, classes, len(right))) % classes, right).astype(np.int32)
        found = find_wrong_labels(out_of_fold(features, labels, groups, classes), labels)
        count, named = max(1, int(spoiled.sum())), len(found.named)
        first = spoiled[found.order[: round(FIRST * len(right))]].sum() / count
        print(
            f"| {dataset.spec} | {len(right):,} | {100 * share:.0f} | {100 * first:.0f} | {100 * found.share:.1f} | "
            f"{named} | {spoiled[found.named].sum()} |",
            flush=True,
        )


def copies(folder: Path, place: Path) -> list[tuple[str, str, str]]:
    """Fill `place` with links to the pictures of `folder` and copies of some; (original, copy, kind) of each copy."""
    draw = np.random.default_rng(0)
    names = [Path(example.name) for example in open_source(str(folder)).examples()]
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).symlink_to(folder / name)
    made = []
    for number, index in enumerate(draw.permutation(len(names))[: COPIES * len(KINDS)].tolist()):
        kind = KINDS[number // COPIES]
        copy = names[index].parent / f"copy-{number:04}.jpg"
        with Image.open(folder / names[index]) as image:
            changed(image.convert("RGB"), kind, draw).save(place / copy, quality=int(draw.integers(50, 91)))
        made.append((str(names[index]), str(copy), kind))
    return made


def changed(image: Image.Image, kind: str, draw: np.random.Generator) -> Image.Image:
    if kind in ("scaled", "all of that"):
        scale = draw.uniform(0.8, 1.2)
        image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)
    if kind in ("cropped", "all of that"):
        across, down = round(0.05 * image.width), round(0.05 * image.height)
        left, top = int(draw.integers(0, across + 1)), int(draw.integers(0, down + 1))
        image = image.crop((left, top, left + image.width - across, top + image.height - down))
    if kind in ("mirrored", "all of that"):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def duplicates(folder: Path) -> None:
    """A row, and the groups that nobody has made, to look at."""
    with tempfile.TemporaryDirectory() as name:
        made = copies(folder, Path(name))
        dataset, source = opened(name, None)
        examine(dataset, source)  # makes the features
        start = time.perf_counter()
        found = examine(dataset, source)
        seconds = time.perf_counter() - start
    names = found.pictures.names
    group_of = {names[member]: number for number, group in enumerate(found.duplicates) for member in group}
    alike = [group_of.get(one, -1) == group_of.get(copy, -2) for one, copy, _ in made]
    each = [np.mean([same for same, (_, _, of) in zip(alike, made, strict=True) if of == kind]) for kind in KINDS]
    pairs = {frozenset((one, copy)) for one, copy, _ in made}
    others = other_pairs(found, pairs)
    percents = " | ".join(f"{100 * share:.1f}" for share in (*each, np.mean(alike)))
    print(f"| {folder} | {len(names):,} | {percents} | {len(others)} | {seconds:.0f} |", flush=True)
    for one, other in others[:40]:
        print(f"  not made here: {one} and {other}")


def other_pairs(found: Findings, made: set[frozenset[str]]) -> list[tuple[str, str]]:
    """Pairs that are named beside those which were made: the first of a group and each other of it."""
    names = found.pictures.names
    pairs = [(names[group[0]], names[member]) for group in found.duplicates for member in group[1:]]
    return [pair for pair in pairs if frozenset(pair) not in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    print(hardware(), flush=True)
    first = f"in the first {100 * FIRST:.0f} % of the list, %"
    print(f"\n| data set | images | changed % | {first} | estimated % | named | of these changed |")
    print("|---|---|---|---|---|---|---|")
    for spec in options.specs:
        dataset, source = opened(spec, options.data_dir)
        wrong_labels(dataset)
        start = time.perf_counter()
        found = examine(dataset, source)
        print(f"  as it is, in {time.perf_counter() - start:.0f} s: {summary(found)}")
    print(f"\n| folder | images | {' | '.join(KINDS)} | all % | other pairs named | s |")
    print("|---" * (len(KINDS) + 5) + "|")
    for spec in options.specs:
        path = Path(spec.removeprefix("folder:"))
        if path.is_dir():
            duplicates(path.resolve())


def summary(found: Findings) -> str:
    kinds = [one.kind for one in found.poor]
    poor = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))) or "no poor ones"
    return f"{len(found.wrong_labels)} labels, {len(found.duplicates)} groups of duplicates, {poor}, {found.alike}"


if __name__ == "__main__":
    main()
