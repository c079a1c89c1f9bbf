#!/bin/bash
# Other people's tools read a bundle that slmops wrote: skopeo (Debian) copies it, and, if docker-registry (Debian) and modelpack
# (`pip install modelpack-client`, an independent ModelPack client) are there too, pushes it and pulls its files.
#
#     tests/peers/bundle.sh dist/PROJECT-VERSION-DEVICE
#
# Without skopeo it fails: a check that did not run must not look like one that passed.
set -euo pipefail

bundle=${1:?usage: bundle.sh BUNDLE}
fail() { echo "FAILED: $*" >&2; exit 1; }
command -v skopeo >/dev/null || fail "this check needs skopeo (apt install skopeo)"
command -v python3 >/dev/null || fail "this check needs python3"

space=$(mktemp -d)
registry=
trap 'kill $registry 2>/dev/null || true; rm -rf "$space"' EXIT

digest() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]+"/index.json"))["manifests"][0]["digest"])' "$1"; }
version=$(python3 -c '
import json,sys
print(json.load(open(sys.argv[1]+"/index.json"))["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])' "$bundle")
wanted=$(digest "$bundle")

skopeo copy --quiet "oci:$bundle:$version" "oci:$space/copy:$version"
[ "$(digest "$space/copy")" = "$wanted" ] || fail "skopeo's copy has another digest"
diff -r "$bundle/blobs" "$space/copy/blobs" || fail "skopeo's copy has other blobs"
echo "ok: skopeo copies it unchanged ($wanted)"

for tool in docker-registry modelpack; do
    if ! command -v "$tool" >/dev/null; then
        echo "NOT CHECKED: pushing and pulling, because $tool is missing" >&2
        exit 0
    fi
done
port=$(python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])')
cat >"$space/registry.yml" <<YML
version: 0.1
storage: {filesystem: {rootdirectory: $space/registry}}
http: {addr: "127.0.0.1:$port"}
YML
docker-registry serve "$space/registry.yml" >"$space/registry.log" 2>&1 &
registry=$!
for _ in $(seq 100); do
    python3 -c 'import socket,sys; socket.create_connection(("127.0.0.1",int(sys.argv[1])))' "$port" 2>/dev/null && break
    sleep 0.1
done
name=127.0.0.1:$port/slmops/peer:1
skopeo copy --quiet --dest-tls-verify=false "oci:$bundle:$version" "docker://$name"
skopeo copy --quiet --src-tls-verify=false "docker://$name" "oci:$space/back:$version"
[ "$(digest "$space/back")" = "$wanted" ] || fail "a registry gave another digest back"
echo "ok: a registry gives it back unchanged"

modelpack --insecure pull "$name" "$space/files" >"$space/pull.log" 2>&1 || { cat "$space/pull.log" >&2; fail "modelpack cannot pull it"; }
python3 - "$bundle" "$space/files" <<'PY' || fail "the pulled files are not the bundle's"
import hashlib, json, pathlib, sys
bundle, files = map(pathlib.Path, sys.argv[1:])
blob = lambda digest: (bundle / "blobs/sha256" / digest.split(":")[1]).read_bytes()
manifest = json.loads(blob(json.load(open(bundle / "index.json"))["manifests"][0]["digest"]))
wanted = {l["annotations"]["org.cncf.model.filepath"]: l["digest"] for l in manifest["layers"]}
found = {p.relative_to(files).as_posix(): "sha256:" + hashlib.sha256(p.read_bytes()).hexdigest() for p in files.rglob("*") if p.is_file()}
missing = {path: digest for path, digest in wanted.items() if found.get(path) != digest}
if missing:
    sys.exit(f"missing or different: {missing}; found {sorted(found)}")
PY
echo "ok: modelpack-client pulls the same files"
