#!/usr/bin/env bash
# wheel.sh BUILD_DIR SOURCE_DIR PYTHON STAND_IN: the wheel, installed by pip into a fresh environment without a network or a
# compiler, and used from an empty folder.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
python=$3
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
"$python" -c 'import ensurepip, venv' 2>/dev/null || skip 'Python has no venv or no pip (Debian: python3-venv)'
for folder in one two; do "$python" "$2/packaging/wheel.py" "$1" "$work/$folder"; done
wheel=$(echo "$work"/one/dsv-*.whl)
cmp "$wheel" "$work"/two/*.whl || die 'two wheels of one build differ'

"$python" -m venv "$work/venv"
PATH=$work/venv/bin:/nowhere pip --disable-pip-version-check --isolated install --no-index --no-deps --no-cache-dir -q \
  "$wheel" || die 'pip'
model=()
if [[ ! -f $2/samples/nano/checkpoint/config.json ]]; then
  echo "no bundled checkpoint: $4 stands in"
  model=("$4")
fi
mkdir "$work/empty"
cd "$work/empty"
venv=$work/venv/bin/python
# The first answer, as someone outside writes it; and that all of it comes from the wheel.
cat >first.py <<'END'
import sys
import dsv

path = sys.argv[1] if len(sys.argv) > 1 else dsv.bundled_checkpoint()
with dsv.Engine() as engine, dsv.Model(engine, path) as model, dsv.Session(model) as session:
    for event in dsv.Chat(session).send("Hello! Who are you?", max_tokens=20):
        if event.kind == dsv.EventKind.CONTENT:
            print(event.text, end="", flush=True)
print()
END
cat >inside.py <<'END'
import base64, hashlib, importlib.metadata, pathlib, re, dsv

distribution = importlib.metadata.distribution("dsv")
assert distribution.version == dsv.__version__, distribution.version
names = {str(file) for file in distribution.files}
info = f"dsv-{dsv.__version__}.dist-info"
for name in ("dsv/py.typed", "dsv/_dsv.pyi", f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"):
    assert name in names, name
checked = 0
for file in distribution.files:
    if file.hash and "__pycache__" not in str(file):
        data = file.locate().read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (file.hash.mode, file.hash.value, file.size) == ("sha256", digest, len(data)), file
        checked += 1
assert checked > 10, checked
home = str(pathlib.Path(dsv.__file__).parent)
mapped = set(re.findall(r"\S*/(?:_dsv|libdsv)\S*", pathlib.Path("/proc/self/maps").read_text()))
assert len(mapped) == 2 and all(path.startswith(home) for path in mapped), mapped
print(f"{checked} files as recorded; loaded: {sorted(mapped)}")
END
env -i "$venv" first.py "${model[@]}" >answer || die 'no answer'
[[ -s answer ]] || die 'it says nothing'
cat answer
env -i "$venv" inside.py || die 'the wheel is not as it should be'
for library in "$work"/venv/lib/python*/site-packages/dsv/*.so*; do
  if readelf -d "$library" | grep -E 'R(UN)?PATH' | grep -v '\[$ORIGIN\]'; then die "$library looks elsewhere"; fi
done
"$work/venv/bin/pip" --disable-pip-version-check --isolated uninstall -qy dsv
left=$(find "$work/venv" -name '*dsv*')
[[ -z $left ]] || die "left behind: $left"
