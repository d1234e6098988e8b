"""wheel.py BUILD OUT: a wheel of the Python package in OUT, from a build tree; the target python_package runs it.

Inside: the package with its native module, libdsv, the bundled checkpoint if the tree has one, and the licences. The
same build makes the same bytes.
"""

import base64
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

BUILD, OUT = sys.argv[1:]


def tag(stage: pathlib.Path) -> str:
    """Of the module's file name, and of this machine's C library: an older one has neither the symbols of libc nor
    those of libstdc++ that the compiler here has used."""
    (module,) = stage.glob("dsv/_dsv.*.so")
    python, machine = re.fullmatch(r"_dsv\.cpython-(\d+)-(\w+)-linux-gnu\.so", module.name).groups()
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[1].replace(".", "_")
    return f"cp{python}-cp{python}-manylinux_{glibc}_{machine}"


def files(stage: pathlib.Path):
    """(name in the wheel, bytes), sorted. Wheels have no links: a library is there once, under the name asked for."""
    links = {path.resolve() for path in stage.rglob("*") if path.is_symlink()}
    for path in sorted(stage.rglob("*")):
        if path.is_file() and (path.is_symlink() or path not in links):
            yield path.relative_to(stage).as_posix(), path.read_bytes()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stage = pathlib.Path(folder).resolve()
        command = ["cmake", "--install", BUILD, "--component", "wheel", "--prefix", folder, "--strip"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (info,) = stage.glob("*.dist-info")
        (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nGenerator: dsv\nRoot-Is-Purelib: false\nTag: {tag(stage)}\n")
        contents = list(files(stage))
        record = ""
        for name, data in contents:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        contents.append((f"{info.name}/RECORD", f"{record}{info.name}/RECORD,,\n".encode()))
        wheel = pathlib.Path(OUT) / f"{info.name.removesuffix('.dist-info')}-{tag(stage)}.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents:
            entry = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if ".so" in name else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    print(wheel)


main()
