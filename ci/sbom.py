"""Writes the SBOM of the program as a CycloneDX document. sbom.sh installs the packages and runs this."""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parent.parent
VERSION = SchemaVersion.V1_6
LICENSES = LicenseFactory()


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked_packages(target):
    """The packages linked into the program with their dependencies and features, without build, dev and macro packages."""
    lines = run("cargo", "tree", "--locked", "--offline", "--edges", "normal,no-proc-macro", "--target", target,
                "--prefix", "depth", "--format", " {p}|{f}").splitlines()
    ancestors, dependencies, features = [], {}, {}
    for line in lines:
        found = re.match(r"(\d+) (\S+) v(\S+?)[ |]", line)
        depth, package = int(found[1]), (found[2], found[3])
        del ancestors[depth:]
        if ancestors:
            dependencies[ancestors[-1]].add(package)
        ancestors.append(package)
        dependencies.setdefault(package, set())
        # cargo lists a package several times, and its dependencies only the first time
        features.setdefault(package, set()).update(line.split("|")[1].removesuffix(" (*)").split(","))
    return dependencies, features


def licence(expression):
    # cargo's old syntax has / for OR
    return LICENSES.make_from_string(re.sub(r"\s*/\s*", " OR ", expression))


def source(text):
    return ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(text.strip()))


def crate(package, checksum):
    purl = PackageURL("cargo", None, package["name"], package["version"])
    return Component(
        type=ComponentType.LIBRARY, name=package["name"], version=package["version"], bom_ref=str(purl), purl=purl,
        description=(package["description"] or "").strip() or None,
        licenses=[licence(package["license"])] if package["license"] else None,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else None,
        external_references=[source(package["repository"])] if package["repository"] else None,
    )


def search(path, pattern):
    found = re.search(pattern, path.read_text(), re.MULTILINE)
    return found or sys.exit(f"error: {path} has no {pattern}: update ci/sbom.py")


def bundled(name, version, packages, features):
    """The component that a package bundles and Cargo.lock does not list, and a text of it that the program must contain."""
    folder = Path(packages[name, version]["manifest_path"]).parent
    if name == "libsqlite3-sys":
        header = folder / "sqlite3/sqlite3.h"
        version = search(header, r'^#define SQLITE_VERSION\s+"([^"]+)"')[1]
        marker = search(header, r'^#define SQLITE_SOURCE_ID\s+"([^"]+)"')[1]
        return part("sqlite", version, "blessing", "https://sqlite.org/src", "sqlite:sqlite"), marker
    if name == "utoipa-swagger-ui":
        # its build script reads the pages from another package
        [vendored] = [p for p in packages.values() if p["name"] == "utoipa-swagger-ui-vendored"]
        [archive] = Path(vendored["manifest_path"]).parent.glob("res/v*.zip")
        version = archive.stem.removeprefix("v")
        purl = PackageURL("npm", None, "swagger-ui-dist", version)
        return part("swagger-ui-dist", version, "Apache-2.0", "https://github.com/swagger-api/swagger-ui",
                    "smartbear:swagger_ui", purl), None
    if name == "libmimalloc-sys":
        major = "v2" if "v2" in features else "v3"
        header = folder / "c_src/mimalloc" / major / "include/mimalloc.h"
        digits = int(search(header, r"^#define MI_MALLOC_VERSION\s+(\d+)")[1])
        version = f"{digits // 10000}.{digits // 100 % 100}.{digits % 100}"
        return part("mimalloc", version, "MIT", "https://github.com/microsoft/mimalloc", "microsoft:mimalloc"), None
    return None, None


def part(name, version, licence_id, url, cpe, purl=None):
    purl = purl or PackageURL("generic", None, name, version)
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, bom_ref=str(purl), purl=purl,
        cpe=f"cpe:2.3:a:{cpe}:{version}:*:*:*:*:*:*:*", licenses=[LICENSES.make_with_id(licence_id)],
        external_references=[source(url)],
    )


def rust():
    """The standard library, which is also linked into the program."""
    release = re.search(r"^release: (.+)$", run("rustc", "--version", "--verbose"), re.MULTILINE)[1]
    purl = PackageURL("generic", None, "rust-std", release)
    return Component(
        type=ComponentType.LIBRARY, name="rust-std", version=release, bom_ref=str(purl), purl=purl,
        cpe=f"cpe:2.3:a:rust-lang:rust:{release}:*:*:*:*:*:*:*", licenses=[licence("MIT OR Apache-2.0")],
        external_references=[source("https://github.com/rust-lang/rust")],
    )


def compare(binary, packages, markers):
    """Fails unless the document lists every package whose path is in the program, and the program contains every marker."""
    contents = binary.read_bytes()
    found = {match[1].decode() for match in re.finditer(rb"registry/src/[^/]+/([\w.+-]+?-\d+\.\d+\.\d+[\w.+-]*)/", contents)}
    unknown = found - {f"{name}-{version}" for name, version in packages}
    if unknown:
        sys.exit(f"error: in {binary} but not in the document: {', '.join(sorted(unknown))}")
    missing = [text for text in markers if text.encode() not in contents]
    if missing:
        sys.exit(f"error: in the document but not in {binary}: {', '.join(missing)}")
    print(f"{binary} names {len(found)} packages, all of which are in the document", file=sys.stderr)
    return sha256(contents).hexdigest()


def main():
    parser = argparse.ArgumentParser(prog="ci/sbom.sh")
    parser.add_argument("--target", default="x86_64-unknown-linux-gnu")
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--timestamp", action="store_true")
    parser.add_argument("file", nargs="?", type=Path)
    args = parser.parse_args()

    dependencies, features = linked_packages(args.target)
    metadata = json.loads(run("cargo", "metadata", "--locked", "--offline", "--format-version", "1"))
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}

    bom, components, markers = Bom(), {}, []
    for key in sorted(dependencies):
        components[key] = crate(packages[key], checksums[key])
    [octopus] = [key for key in dependencies if packages[key]["id"] in metadata["workspace_members"]]
    main_component = components[octopus]
    main_component.type = ComponentType.APPLICATION
    standard = rust()
    bom.components.add(standard)
    for key in sorted(dependencies):
        contained = [components[other] for other in dependencies[key]]
        extra, marker = bundled(*key, packages, features[key])
        if extra:
            bom.components.add(extra)
            contained.append(extra)
        if marker:
            markers.append(marker)
        if key == octopus:
            contained.append(standard)
        else:
            bom.components.add(components[key])
        bom.register_dependency(components[key], contained)

    main_component.properties.add(Property(name="octopus:target", value=args.target))
    digest = ""
    if args.binary:
        digest = compare(args.binary, dependencies, markers)
        main_component.hashes.add(HashType(alg=HashAlgorithm.SHA_256, content=digest))
    bom.metadata.component = main_component
    # The document must be reproducible byte for byte.
    bom.metadata.timestamp = None
    if args.timestamp:
        bom.metadata.timestamp = datetime.now(timezone.utc)
    elif "SOURCE_DATE_EPOCH" in os.environ:
        bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
    contents = "\n".join(sorted(c.bom_ref.value for c in bom.components)) + args.target + digest
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, contents)

    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=2) + "\n"
    problem = JsonStrictValidator(VERSION).validate_str(text)
    if problem:
        sys.exit(f"error: the document is not valid CycloneDX {VERSION.to_version()}: {problem}")
    print(f"valid CycloneDX {VERSION.to_version()}, {len(bom.components)} components", file=sys.stderr)
    if args.file:
        args.file.write_text(text)
    else:
        sys.stdout.write(text)


main()
