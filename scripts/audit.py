"""Checks the versions in all locks, and the libraries in their wheels, against known security advisories.

    python scripts/audit.py            with the stored advisories.json; needs no network
    python scripts/audit.py --update   fetches the advisories of the locked packages first; needs network

Exit code 1 for a version with a known hole, unless advisories.json names the reason for accepting it.

advisories.json: `date` of the advisories; `packages`: name → id → affected versions and summary; `libraries`: the same
for shared libraries, kept by hand, as no advisory of PyPI covers them; `bundled`: name==version → the libraries in its
wheel; `accepted`: id → reason.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import json
import re
import sys
import urllib.request
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from packaging.specifiers import InvalidSpecifier, SpecifierSet

PROJECT = Path(__file__).parents[1]
STORED = Path(__file__).with_name("advisories.json")
# All advisories of PyPI in the OSV format (ossf.github.io/osv-schema), those of malicious packages included.
OSV = "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip"
TIMEOUT_S = 60
MAX_SUMMARY = 120  # characters
OR = " || "  # between ranges of affected versions
LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


class Finding(NamedTuple):
    """A locked version with a known hole."""

    name: str  # of the package, or of a library in its wheel
    version: str
    locks: tuple[str, ...]
    advisory: str
    summary: str


def locked_versions(folder: Path = PROJECT) -> dict[tuple[str, str], tuple[str, ...]]:
    """(name, version) of every package → the locks that have it."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for lock in sorted(folder.glob("requirements*.lock")):
        for name, version in LOCKED.findall(lock.read_text(encoding="utf-8")):
            found[_normal(name), version] = (*found.get((_normal(name), version), ()), lock.name)
    return found


def find_holes(locked: dict[tuple[str, str], tuple[str, ...]], stored: dict[str, Any]) -> Iterator[Finding]:
    """Findings that are not accepted."""
    checked = [(name, version, locks, "packages") for (name, version), locks in locked.items()]
    bundles = {bundle.partition("==")[0] for bundle in stored["bundled"]}
    for (name, version), locks in locked.items():
        libraries = stored["bundled"].get(f"{name}=={version}", {})
        if name in bundles and not libraries:
            yield Finding(name, version, locks, "unknown", "the libraries in its wheel are not in advisories.json")
        checked += [(library, libraries[library], locks, "libraries") for library in libraries]
    for name, version, locks, kind in checked:
        for advisory, text in stored[kind].get(name, {}).items():
            affected, _, summary = text.partition(": ")
            is_affected = any(SpecifierSet(each).contains(version, prereleases=True) for each in affected.split(OR))
            if is_affected and advisory not in stored["accepted"]:
                yield Finding(name, version, locks, advisory, summary)


def fetch(url: str, names: set[str], accepted: Collection[str]) -> dict[str, dict[str, str]]:
    """Advisories of the packages `names` from a zip archive of OSV files; an accepted alias is used as the id."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        archive = zipfile.ZipFile(io.BytesIO(response.read()))
    found: dict[str, dict[str, str]] = {}
    for file in archive.namelist():
        entry = json.loads(archive.read(file))
        advisory = next((alias for alias in entry.get("aliases", ()) if alias in accepted), entry["id"])
        summary = (entry.get("summary") or entry.get("details", "")).split("\n")[0][:MAX_SUMMARY]
        affected: dict[str, list[str]] = {}
        for part in entry.get("affected", ()) if "withdrawn" not in entry else ():
            affected.setdefault(_normal(part.get("package", {}).get("name", "")), []).extend(_affected(part))
        for name in names & affected.keys():
            if affected[name]:
                found.setdefault(name, {})[advisory] = f"{OR.join(affected[name])}: {summary}"
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def _affected(part: dict[str, Any]) -> Iterator[str]:
    """Version specifiers of the affected ranges, or of the single versions where there are no ranges."""
    ranges = [each for each in part.get("ranges", ()) if each.get("type") == "ECOSYSTEM"]
    for each in ranges:
        start = None  # of a range without its end yet
        for event in each["events"]:
            if "introduced" in event:
                start = f">={event['introduced']}"
            elif "fixed" in event or "last_affected" in event:
                end = f"<{event['fixed']}" if "fixed" in event else f"<={event['last_affected']}"
                yield f"{start},{end}" if start else end
                start = None
        if start:
            yield start
    if not ranges:
        for version in part.get("versions", ()):
            with contextlib.suppress(InvalidSpecifier):  # versions before PEP 440
                yield str(SpecifierSet(f"=={version}"))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    parser = argparse.ArgumentParser(description="Check all locks against known security advisories.")
    parser.add_argument("--update", nargs="?", const=OSV, metavar="URL", help="fetch the advisories; needs network")
    options = parser.parse_args()
    locked, stored = locked_versions(), json.loads(STORED.read_text(encoding="utf-8"))
    if options.update:
        try:
            packages = fetch(options.update, {name for name, _ in locked}, stored["accepted"])
        except (OSError, zipfile.BadZipFile) as error:
            print(f"error: {options.update}: the advisories cannot be fetched: {error}", file=sys.stderr)
            return 2
        stored |= {"date": datetime.date.today().isoformat(), "source": options.update, "packages": packages}
        STORED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    findings = list(find_holes(locked, stored))
    for each in findings:
        print(f"{each.name} {each.version} ({', '.join(each.locks)}): {each.advisory}: {each.summary}")
    print(f"{len(locked)} locked versions, advisories of {stored['date']}: {len(findings)} known holes")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
