"""blocks.py LANGUAGE DOCUMENT --key value...: every code block of a language in a document is compiled and run.

A whole program gets the checkpoint's folder as its argument. A fragment finds `path`, `engine`, `model` and `session`
open, each fragment its own. LANGUAGE `names` checks that every block is of a language that is tested here.
Exits 77 with the reason if what the language needs is not there.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("language")
parser.add_argument("document", type=pathlib.Path)
parser.add_argument("--source", type=pathlib.Path, help="the source tree")
parser.add_argument("--prefix", type=pathlib.Path, help="an installed dsv")
parser.add_argument("--model", help="a checkpoint's folder")
parser.add_argument("--bindings", type=pathlib.Path, help="the build tree's bindings")
parser.add_argument("--cc", default="cc")
parser.add_argument("--cxx", default="c++")
parser.add_argument("--cmake", default="cmake")
parser.add_argument("--python", default="")
parser.add_argument("--java", default="")
parser.add_argument("--javac", default="")
parser.add_argument("--mcs", default="")
parser.add_argument("--mono", default="")
arguments = parser.parse_args()
work = pathlib.Path()


def skip(reason):
    print("SKIPPED: " + reason)
    sys.exit(77)


def blocks():
    """(language, number of the first line, text) of every block."""
    found, language, first, lines = [], None, 0, []
    for number, line in enumerate(arguments.document.read_text().splitlines(), 1):
        if not line.startswith("```"):
            lines.append(line)
        elif language is None:
            language, first, lines = line[3:], number + 1, []
        else:
            found.append((language, first, "\n".join(lines) + "\n"))
            language = None
    assert language is None, f"{arguments.document}: a block has no end"
    return found


def run(*command, **options):
    print("+", *command, flush=True)
    subprocess.run(command, check=True, cwd=work, **options)


def environment():
    """Of a user who knows only the installed package."""
    values = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG", "TMPDIR")}
    (pc,) = arguments.prefix.rglob("dsv.pc")
    values.update(
        PKG_CONFIG_PATH=str(pc.parent), LD_LIBRARY_PATH=str(pc.parent.parent), CMAKE_PREFIX_PATH=str(arguments.prefix)
    )
    return values


def flags(*what):
    done = subprocess.run(["pkg-config", *what, "dsv"], env=environment(), check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_c(texts):
    for number, text in texts:
        (work / "program.c").write_text(f'#line {number} "{arguments.document.name}"\n{text}')
        run(
            arguments.cc,
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "program.c",
            *flags("--cflags", "--libs"),
            "-o",
            "program",
        )
        run("./program", arguments.model, env=environment())


CPP = """#include <dsv/dsv.hpp>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>
"""


def test_cpp(texts):
    functions, calls = "", ""
    for number, text in texts:
        if "int main" in text:
            compile_cpp(f'#line {number} "{arguments.document.name}"\n{text}')
            continue
        functions += f"""
static void fragment_{number}(const std::string& path, dsv::Engine& engine, dsv::Model& model, dsv::Session& session) {{
  (void)path, (void)engine, (void)model, (void)session;
  {{
#line {number} "{arguments.document.name}"
{text}  }}
}}
"""
        calls += f"""  {{
    std::cout << "--- line {number}" << std::endl;
    dsv::Engine engine;
    dsv::Model model(engine, argv[1]);
    dsv::Session session(model);
    fragment_{number}(argv[1], engine, model, session);
    std::cout << std::endl;
  }}
"""
    if calls:
        end = '} catch (const std::exception& error) {\n  std::cerr << error.what() << "\\n";\n  return 1;\n}\n'
        compile_cpp(f"{CPP}{functions}\nint main(int, char** argv) try {{\n{calls}{end}")


def compile_cpp(text):
    (work / "program.cpp").write_text(text)
    run(
        arguments.cxx,
        "-std=c++17",
        "-Wall",
        "-Wextra",
        "-Werror",
        "program.cpp",
        *flags("--cflags", "--libs"),
        "-pthread",
        "-o",
        "program",
    )
    run("./program", arguments.model, env=environment())


def write_game():
    shutil.copy(arguments.source / "tests/packages/consumer.cpp", work / "game.cpp")


def test_cmake(texts):
    write_game()
    for number, text in texts:
        (work / "CMakeLists.txt").write_text(
            f"cmake_minimum_required(VERSION 3.22)\nproject(block_{number} LANGUAGES CXX)\n{text}"
        )
        run(arguments.cmake, "-B", f"build-{number}", env=environment())
        run(arguments.cmake, "--build", f"build-{number}", env=environment())
        run(f"build-{number}/game", arguments.model, env=environment())


def test_sh(texts):
    """bootstrap.sh runs these tests, so of it only the commands' names are checked."""
    write_game()
    bootstrap = (arguments.source / "packaging/bootstrap.sh").read_text()
    for _, text in texts:
        rest = ""
        for line in text.splitlines():
            if line.startswith("bash packaging/bootstrap.sh "):
                name = line.split()[2]
                assert re.search(rf"^  {name}\)$", bootstrap, re.M), f"bootstrap.sh has no command {name}"
            else:
                rest += line + "\n"
        if rest.strip():
            run("bash", "-euc", rest, env=environment())
            programs = re.findall(r"-o (\S+)", rest)
            for program in programs:
                run(f"./{program}", arguments.model, env=environment())


PYTHON = """import sys
import dsv
path = sys.argv[1]
with dsv.Engine() as engine, dsv.Model(engine, path) as model, dsv.Session(model) as session:
"""


def test_python(texts):
    if not arguments.python:
        skip("the Python binding is not built")
    for number, text in texts:
        whole = "import dsv" in text
        program = text if whole else PYTHON + "".join("    " + line for line in text.splitlines(True))
        (work / "program.py").write_text(program)
        print(f"--- line {number}", flush=True)
        values = {**environment(), "PYTHONPATH": str(arguments.bindings / "python")}
        run(arguments.python, "program.py", arguments.model, env=values)
        print()


JAVA = """import ai.dsv.*;
import java.nio.file.Path;
import java.util.*;

public class Program {
  public static void main(String[] args) throws Exception {
    Path path = Path.of(args[0]);
    try (Engine engine = new Engine(); Model model = new Model(engine, path); Session session = new Session(model)) {
%s    }
  }
}
"""


def bundled(text, call, instead):
    """A program that asks for the bundled checkpoint gets the one of this test."""
    return text.replace(call, instead)


def test_java(texts):
    if not arguments.java:
        skip("the Java binding is not built")
    jar = arguments.bindings / "java/dsv.jar"
    for number, text in texts:
        found = re.search(r"public class (\w+)", text)
        name = found.group(1) if found else "Program"
        program = bundled(text, "Dsv.bundledCheckpoint()", "java.nio.file.Path.of(args[0])") if found else JAVA % text
        (work / f"{name}.java").write_text(program)
        print(f"--- line {number}", flush=True)
        run(arguments.javac, "-encoding", "UTF-8", "-cp", str(jar), "-d", ".", f"{name}.java", env=environment())
        run(arguments.java, "-cp", f"{jar}:.", name, arguments.model, env=environment())
        print()


CSHARP = """using System;
using System.Collections.Generic;
using Dsv;

internal static class Program {
  private static void Main(string[] args) {
    string path = args[0];
    using (var engine = new Engine())
    using (var model = new Model(engine, path))
    using (var session = new Session(model)) {
%s    }
  }
}
"""


def test_csharp(texts):
    if not arguments.mono:
        skip("the C# binding is not built")
    folder = arguments.bindings / "csharp"
    for number, text in texts:
        whole = "static void Main" in text
        program = (
            bundled(text, "Library.BundledCheckpoint()", "System.Environment.GetCommandLineArgs()[1]")
            if whole
            else CSHARP % text
        )
        (work / "Program.cs").write_text(program)
        print(f"--- line {number}", flush=True)
        run(
            arguments.mcs,
            "-langversion:7",
            "-nologo",
            "-reference:System.Core.dll",
            f"-reference:{folder}/Dsv.dll",
            "-out:Program.exe",
            "Program.cs",
            env=environment(),
        )
        run(arguments.mono, "Program.exe", arguments.model, env={**environment(), "MONO_PATH": str(folder)})
        print()


TESTS = {
    "c": test_c,
    "cpp": test_cpp,
    "cmake": test_cmake,
    "sh": test_sh,
    "python": test_python,
    "java": test_java,
    "csharp": test_csharp,
}


def main():
    global work
    if arguments.language == "names":
        for language, number, _ in blocks():
            assert (
                language in TESTS
            ), f"{arguments.document}:{number}: the block's language, {language!r}, is not tested"
        return
    texts = [(number, text) for language, number, text in blocks() if language == arguments.language]
    assert texts, f"{arguments.document} has no block of {arguments.language}"
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        TESTS[arguments.language](texts)
    print(f"{len(texts)} blocks")


main()
