"""Stand-ins for the CUDA libraries that PyPI's torch links: on a machine without a GPU nothing calls them, but they must load.

usage: torch_stand_ins.py SITE_PACKAGES DIR    writes DIR/lib*.so; put DIR in LD_LIBRARY_PATH
"""

import collections
import glob
import os
import re
import subprocess
import sys


def needed(library):
    out = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", out)


def symbols(library):
    """(undefined symbols as (name, version), names that are defined)"""
    wanted, defined = set(), set()
    out = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout
    for parts in map(str.split, out.splitlines()):
        if len(parts) == 2 and parts[0] in "Uvw":
            name, _, version = parts[1].partition("@")
            wanted.add((name, version.lstrip("@")))
        elif len(parts) == 3:
            defined.add(parts[2].split("@")[0])
    return wanted, defined


def write(folder, library, versions):
    names = set().union(*versions.values()) if versions else set()
    # 100 is cudaErrorNoDevice; whoever asks for the text of an error needs a text.
    text = re.compile(r"Error(String|Name)$")
    answer = lambda name: f'const char *{name}(void) {{ return "no device"; }}' if text.search(name) else f"int {name}(void) {{ return 100; }}"
    source = "".join(answer(name) + "\n" for name in sorted(names))
    script = "".join(
        f"{version} {{ global: {' '.join(name + ';' for name in sorted(wanted))} }};\n" for version, wanted in sorted(versions.items()) if version
    )
    open(f"{folder}/stub.c", "w").write(source)
    open(f"{folder}/stub.map", "w").write(script)
    command = ["gcc", "-shared", "-fPIC", f"{folder}/stub.c", f"-Wl,-soname,{library}", "-o", f"{folder}/{library}"]
    subprocess.run(command + ([f"-Wl,--version-script={folder}/stub.map"] if script else []), check=True)


def main(packages, folder):
    os.makedirs(folder, exist_ok=True)
    libraries = glob.glob(f"{packages}/torch/lib/*.so*")
    present = {os.path.basename(library) for library in libraries}
    system = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout.split()
    wanted, defined, missing = set(), set(), set()
    for library in libraries:
        more, own = symbols(library)
        wanted |= more
        defined |= own
        missing |= {name for name in needed(library) if name not in present and name not in system}
    stubs = collections.defaultdict(lambda: collections.defaultdict(set))
    stem = {library: re.sub(r"^lib|[_.].*$", "", library).lower() for library in missing}
    for name, version in wanted:
        if name in defined:
            continue
        if version in missing:
            stubs[version][version].add(name)
            continue
        # Without a version of that name, the longest library stem that begins the symbol's name owns it.
        lower = re.sub(r"^cuda", "cudart", name.lower())
        owners = [library for library, text in stem.items() if lower.startswith(text) or (text == "cuda" and lower.startswith("cu"))]
        if owners and (not version or version.isupper()):
            stubs[max(owners, key=lambda library: len(stem[library]))][version].add(name)
    for library in sorted(missing):
        write(folder, library, stubs[library])
    os.remove(f"{folder}/stub.c")
    os.remove(f"{folder}/stub.map")
    print(f"{len(missing)} stand-ins in {folder}")


main(*sys.argv[1:])
