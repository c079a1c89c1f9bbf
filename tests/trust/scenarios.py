"""Commands that are to be broken off, the states that they start from, and what must hold afterwards."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from space import CHAIN, FAILS, WIDE, digest_of

BUNDLE = "dist/tiny-1.0-a"


@dataclass(frozen=True)
class Scenario:
    name: str
    arguments: tuple
    # Brings a fresh project into the state that the command starts from.
    prepare: object
    # How the command ends when nothing goes wrong.
    code: int = 0
    # What a person would do next. `build` follows in any case.
    again: tuple = ()
    # A file or folder that the command writes outside of the store and `dist/`: it may be missing or complete.
    product: str = ""
    # Steps that the next build may have to run. None of them where the command deletes or reads only.
    builds_again: bool = True


def one_after_the_other(space):
    space.change(shape=CHAIN)


def side_by_side(space):
    space.change(shape=WIDE)


def text_changed(space):
    """The store and `dist/` hold the old text's results; the manifest asks for the new text's."""
    space.succeed("build", "-j1")
    space.change(text="new")


def built_but_not_delivered(space):
    """The store holds both texts' results, `dist/` the old text's; the manifest asks for the new text's."""
    space.succeed("build", "-j1")
    shutil.copytree(space.project / "dist", space.project.parent / "old-dist", symlinks=True)
    space.change(text="new")
    space.succeed("build", "-j1")
    shutil.rmtree(space.project / "dist")
    (space.project.parent / "old-dist").rename(space.project / "dist")


def gate_raised(space):
    space.succeed("build", "-j1")
    space.change(limit=FAILS)


def much_garbage(space):
    """Two texts' results of which one is needed, and what a killed process leaves."""
    space.succeed("build", "-j1")
    space.change(text="new")
    space.succeed("build", "-j1")
    key = "0" * 64
    for folder in (f"partial/{key}/exec-AbCdEf/tmp/inner", "tmp/4000000-0/out/inner"):
        (space.project / "cache" / folder).mkdir(parents=True)
        (space.project / "cache" / folder / "file").write_text("left over")
    (space.project / "cache/tmp/4000000-0.lock").touch()
    (space.project / f"cache/quarantine/object-{key}").write_text("damaged")


def export_beside_empty_store(space):
    space.succeed("build", "-j1")
    space.succeed("cache", "export", "results.tar")
    shutil.rmtree(space.project / "cache")


def built(space):
    space.succeed("build", "-j1")


def one_object_damaged(space):
    space.succeed("build", "-j1")
    largest = max((space.project / "cache/objects").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(content)


def source_in_a_repository(space):
    """Pinned to a commit by `lock`; its file is fetched into the store."""
    repository = space.project.parent / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    repository.mkdir()
    shutil.copy(space.project / "text.jsonl", repository)
    for command in ("init -q -b main", "add .", "-c user.name=n -c user.email=e commit -q -m m"):
        subprocess.run(["git", *command.split()], cwd=repository, check=True)
    space.change(source=f'{{ git = "{repository}", branch = "main", path = "text.jsonl" }}', shape=CHAIN)


def source_pinned(space):
    source_in_a_repository(space)
    space.succeed("lock")
    shutil.rmtree(space.project / "cache")


SCENARIOS = [
    Scenario("build", ("build", "-j1"), one_after_the_other),
    Scenario("build-wide", ("build", "-j2"), side_by_side),
    Scenario("rebuild", ("build", "-j1"), text_changed),
    Scenario("redeliver", ("build", "-j1"), built_but_not_delivered, builds_again=False),
    Scenario("gate", ("build", "-j1"), gate_raised, code=1),
    Scenario("gc", ("cache", "gc"), much_garbage, builds_again=False),
    Scenario("gc-all", ("cache", "gc", "--all"), much_garbage),
    Scenario("import", ("cache", "import", "results.tar"), export_beside_empty_store, again=("cache", "import", "results.tar"), builds_again=False),
    Scenario("export", ("cache", "export", "out.tar"), built, again=("cache", "export", "out.tar"), product="out.tar", builds_again=False),
    Scenario("out", ("out", "model", "copy"), built, again=("out", "model", "copy"), product="copy", builds_again=False),
    Scenario("rebuild-check", ("verify", BUNDLE, "--rebuild"), built, again=("verify", BUNDLE, "--rebuild"), builds_again=False),
    Scenario("lock", ("lock",), source_in_a_repository, again=("lock",), product="slmops.lock"),
    Scenario("fetch", ("build", "-j1"), source_pinned),
    Scenario("init", ("init", "start"), built, again=("init", "start"), product="start/slmops.toml", builds_again=False),
    Scenario("store-check", ("cache", "verify"), one_object_damaged, code=1),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass
class Expected:
    """What an uninterrupted run comes to, and a build after it."""

    before: dict
    after: dict
    outputs: dict
    code: int
    product: str
    listing: set
    objects: dict


def digest_of_product(space, scenario):
    path = space.project / scenario.product
    return digest_of(path) if scenario.product and path.exists() else ""


def objects(space):
    folder = space.project / "cache/objects"
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepare(space, scenario, tool):
    """Sets the scenario up in this space, and finds out how it ends without a fault."""
    shutil.rmtree(space.project, ignore_errors=True)
    space.write_project(tool)
    scenario.prepare(space)
    space.keep(scenario.name)
    before = space.bundles()
    ran = space.run(*scenario.arguments)
    if ran.code != scenario.code:
        raise SystemExit(f"{scenario.name}: `slmops {' '.join(scenario.arguments)}` ended with {ran.code}:\n{ran.out}{ran.err}")
    product = digest_of_product(space, scenario)
    build = space.run("build", "-j1", "--json")
    contents = objects(space)
    space.succeed("cache", "gc")
    return Expected(before, space.bundles(), build.outputs(), build.code, product, space.listing(), contents)
