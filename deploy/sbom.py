"""Software bill of materials of the image, as CycloneDX JSON on stdout; the Dockerfile runs it.

Lists the Python packages of the environment that runs it, Python itself and the Debian packages of the base image. No
time and no serial number: the same packages give the same bytes.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from typing import Any
from urllib.parse import quote

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = "classifier"  # name of the Bento
DPKG = ("dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\n")


def bill_of_materials() -> dict[str, Any]:
    """CycloneDX 1.6 document. Raises OSError and CalledProcessError where the base image is not Debian."""
    packages = {canonicalize_name(found.name): found for found in distributions()}
    references = {name: f"pkg:pypi/{name}@{quote(found.version)}" for name, found in packages.items()}
    python = [python_component(references[name], packages[name]) for name in sorted(packages)]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": ROOT, "name": ROOT}},
        "components": [*python, interpreter(), *debian_components()],
        "dependencies": [
            {"ref": ROOT, "dependsOn": sorted(references.values())},
            *(
                {
                    "ref": references[name],
                    "dependsOn": sorted({references[found] for found in required(package) if found in references}),
                }
                for name, package in sorted(packages.items())
            ),
        ],
    }


def python_component(reference: str, package: Distribution) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "licenses": licences(package),
        "purl": reference,
    }


def licences(package: Distribution) -> list[dict[str, Any]]:
    """Licences of a package as its metadata name them; empty where they hold a whole text, or nothing."""
    described = package.metadata.json
    if "license_expression" in described:
        return [{"expression": described["license_expression"]}]
    name = str(described.get("license", ""))
    classifiers = [text for text in described.get("classifier", ()) if str(text).startswith("License ::")]
    names = [name] if name and "\n" not in name else [str(text).rpartition(" :: ")[2] for text in classifiers]
    return [{"license": {"name": name}} for name in names]


def required(package: Distribution) -> Iterator[NormalizedName]:
    """Names of the packages that `package` needs here, without extras."""
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def interpreter() -> dict[str, Any]:
    reference = f"pkg:generic/python@{platform.python_version()}"
    return {
        "type": "platform",
        "bom-ref": reference,
        "name": "python",
        "version": platform.python_version(),
        "purl": reference,
    }


def debian_components() -> Iterator[dict[str, Any]]:
    release = platform.freedesktop_os_release()
    for line in sorted(subprocess.run(DPKG, capture_output=True, text=True, check=True).stdout.splitlines()):
        name, version, architecture = line.split()
        distribution = f"{release['ID']}-{release['VERSION_ID']}"
        reference = f"pkg:deb/{release['ID']}/{quote(name)}@{quote(version)}?arch={architecture}&distro={distribution}"
        yield {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": reference}


if __name__ == "__main__":
    print(json.dumps(bill_of_materials(), indent=1))
