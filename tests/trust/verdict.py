"""What is right and what is wrong: how a command ended that a fault was put into, and what it left."""

import re
import shutil

from scenarios import digest_of_product, one_object_damaged

HUNG = "did not end in time"
# libgit2 keeps no cause of an error of the system.
EXPLAINS = re.compile(
    r"git: (failed to|object not found|target OID|could not)|"
    r"os error \d+|No space|Input/output|Too many open|[Qq]uota|Read-only|Cannot allocate|Interrupted|not permitted|damaged|temporarily unavailable|"
    r"Too many links|not supported|locks available|Invalid argument|not implemented|killed|table|too l(ong|arge)"
)
# The clone of a repository needs the pinned commit only, whether its objects are packed or not: after a fetch that was broken off, its branches' names and
# the end of its locks come with the next one.
CLONES = re.compile(r"cache/sources/git/[0-9a-f]{64}/(refs|FETCH_HEAD|packed-refs|objects|config\.lock)")
THINGS = ("`", "/", "stdout", "thread", "signal", "sandbox", "object", "action")


def judge(space, scenario, expected, ran, codes, must_explain=True):
    """What is wrong with an end of which it is not known whether the fault was in the way. `codes` are those of an honest failure."""
    said = ran.err.strip()[-400:]
    if ran.code is None:
        return [HUNG]
    if "panicked" in ran.err:
        return [f"panicked: {said}"]
    if ran.code == scenario.code:
        return judge_success(space, scenario, expected)
    if ran.code not in codes:
        return [f"ended with {ran.code}: {said}"]
    if ran.code == 3 and must_explain and not explains(ran.out + "\n" + ran.err):
        return [f"does not say what failed: {said}"]
    return []


def judge_success(space, scenario, expected):
    """Whoever says that all went well has done the whole work."""
    wrong = []
    if scenario.product and digest_of_product(space, scenario) != expected.product:
        wrong.append(f"ended with {scenario.code}, and {scenario.product} is incomplete")
    if scenario.arguments[0] == "build" and space.bundles() != expected.after:
        wrong.append(f"ended with {scenario.code}, and `dist/` is not right")
    return wrong


def explains(text):
    """A line that tells of a failure, the thing that it was about, and the cause."""
    lines = [line for line in text.splitlines() if any(word in line.lower() for word in ("error", "fail", "cannot"))]
    return any(any(thing in line for thing in THINGS) and EXPLAINS.search(line) for line in lines)


def examine(space, scenario, expected, may_lack_bundles=False):
    """What is wrong after the command was broken off. The next build is part of the examination. Where a step has failed, its bundles are gone."""
    wrong = []
    if left := space.wait_for_processes():
        wrong.append(f"{len(left)} processes left")
        space.kill_processes()
    remove_kept_bundles(space, expected)
    wrong += examine_bundles(space, expected, may_lack_bundles)
    if digest_of_product(space, scenario) not in ("", expected.product):
        wrong.append(f"{scenario.product} is incomplete")
    wrong += examine_store(space, scenario, expected)
    wrong += examine_repetition(space, scenario, expected)
    wrong += examine_build(space, expected, scenario.builds_again)
    gc = space.run("cache", "gc")
    if gc.code != 0:
        wrong.append(f"cache gc ended with {gc.code}: {gc.err.strip()}")
    if leftovers := {path for path in space.listing() - expected.listing if not CLONES.search(path)}:
        wrong.append(f"{len(leftovers)} leftovers: {' '.join(sorted(leftovers)[:3])}")
    if lost := {path for path in expected.listing - space.listing() if not CLONES.search(path)}:
        wrong.append(f"{len(lost)} paths lost: {' '.join(sorted(lost)[:3])}")
    return wrong


def remove_kept_bundles(space, expected):
    """An old bundle that could not be read once more when it was replaced is kept under another name: nothing is deleted unseen."""
    for name, digest in space.bundles().items():
        if (kept := re.fullmatch(r"(.+)\.changed-\d+", name)) and digest == expected.before.get(kept[1]):
            shutil.rmtree(space.project / "dist" / name)


def examine_bundles(space, expected, may_lack=False):
    found, wrong = space.bundles(), []
    for name in {*found, *expected.before, *expected.after}:
        # A bundle that was there and is to be there again is never missing.
        allowed = {expected.before.get(name), expected.after.get(name)}
        if found.get(name) not in allowed and not (may_lack and name not in found):
            wrong.append(f"dist/{name} is {'neither old nor new' if name in found else 'missing'}")
    return wrong


def examine_store(space, scenario, expected):
    if not (space.project / "cache/VERSION").exists():
        return []
    wrong = []
    for path in (space.project / "cache/quarantine").glob("object-*"):
        if path.read_bytes() == expected.objects.get(path.name.removeprefix("object-")):
            wrong.append(f"{path.name[:19]} is intact, and in quarantine")
    ran = space.run("cache", "verify")
    if ran.code not in (0, 1 if scenario.prepare is one_object_damaged else 0):
        wrong.append(f"cache verify ended with {ran.code}: {(ran.out + ran.err).strip()}")
    return wrong


def examine_repetition(space, scenario, expected):
    # Nothing is written twice without being asked to.
    is_done = scenario.product and digest_of_product(space, scenario) == expected.product
    if not scenario.again or is_done:
        return []
    ran = space.run(*scenario.again)
    if ran.code != scenario.code:
        return [f"the same command ended with {ran.code}: {ran.err.strip()}"]
    return [] if digest_of_product(space, scenario) == expected.product else [f"{scenario.product} is incomplete after a second run"]


def examine_build(space, expected, may_run_steps):
    ran, wrong = space.run("build", "-j1", "--json"), []
    if ran.code != expected.code:
        return [f"the next build ended with {ran.code}: {ran.err.strip()}"]
    if ran.outputs() != expected.outputs:
        differing = [name for name in expected.outputs if ran.outputs().get(name) != expected.outputs[name]]
        wrong.append(f"the next build has other results: {' '.join(differing)}")
    if space.bundles() != expected.after:
        wrong.append("the next build delivers other bundles")
    if not may_run_steps and ran.count("built"):
        wrong.append(f"the next build had to run {ran.count('built')} steps again")
    return wrong
