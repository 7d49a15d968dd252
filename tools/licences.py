#!/usr/bin/env python3
"""licences.py TRIPLE > FILE: name and licence of every crate that is linked into gemmad, and the texts that go with it."""

import json
import pathlib
import subprocess
import sys


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, capture_output=True, text=True).stdout


triple = sys.argv[1]
tree = cargo("tree", "--locked", "--package", "gemmad", "--edges", "normal", "--target", triple, "--prefix", "none", "--format", "{p}")
linked = {tuple(line.split()[:2]) for line in tree.splitlines()}
packages = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", triple))["packages"]
for package in sorted(packages, key=lambda package: (package["name"], package["version"])):
    if package["source"] is None or (package["name"], "v" + package["version"]) not in linked:
        continue
    print("=" * 80)
    print(package["name"], package["version"], "-", package["license"], "-", package["repository"] or "")
    for path in sorted(pathlib.Path(package["manifest_path"]).parent.iterdir()):
        if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE")):
            # The text of Apache-2.0 is part of Debian: /usr/share/common-licenses/Apache-2.0.
            text = path.read_text(errors="replace").rstrip()
            if "Apache License" in text[:200]:
                continue
            print("-" * 80)
            print(text)
