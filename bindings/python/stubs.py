"""stubs.py SWIG INCLUDE DSV_I OUT: the type hints of the native module, _dsv.pyi, from what SWIG reads in the headers."""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

NUMBERS = {"int32_t": "int", "int64_t": "int", "uint64_t": "int", "dsv_status": "int", "float": "float", "bool": "bool"}
TAKEN = {"r.q(const).std::string": "Union[str, bytes]", "r.q(const).std::vector<(int32_t)>": "Iterable[int]"}
GIVEN = {
    "void": "None",
    "std::string": "str",
    "dsv::binding::Bytes": "bytes",
    "std::vector<(int32_t)>": "List[int]",
    "std::vector<(float)>": "bytes",
}


def attributes(node):
    values = {}
    for attribute in node.findall("attributelist/attribute"):
        values[attribute.get("name")] = attribute.get("value")
    values["parameters"] = [attributes(parameter) for parameter in node.findall("attributelist/parmlist/parm")]
    return values


class Module:
    def __init__(self, tree, booleans):
        self.tree = tree
        self.booleans = booleans
        found = (attributes(node) for node in tree.iter("class"))
        self.classes = {values["name"]: values["sym_name"] for values in found if "feature_ignore" not in values}

    def taken(self, kind):
        if kind.startswith("p.q(const)."):
            return f"Optional[{self.classes[kind[len('p.q(const).'):]]}]"
        return TAKEN.get(kind) or NUMBERS[kind]

    def given(self, values):
        kind = values["type"]
        if values["decl"].endswith(".p."):
            return f"Optional[{self.classes[kind]}]"
        return GIVEN.get(kind) or NUMBERS.get(kind) or self.classes[kind]

    def function(self, values, first=()):
        parameters = [f"{one['name']}: {self.taken(one['type'])}" for one in values["parameters"]]
        return f"def {values['sym_name']}({', '.join([*first, *parameters])}) -> {self.given(values)}: ..."

    def lines(self):
        yield "from typing import Iterable, List, Optional, Union"
        for tag in ("constant", "enumitem"):
            for node in self.tree.iter(tag):
                values = attributes(node)
                if "sym_name" in values and "feature_ignore" not in values:
                    yield f"{values['sym_name']}: int"
        for node in self.tree.iter("class"):
            yield from self.members(node)
        for node in self.tree.iter("cdecl"):
            values = attributes(node)
            if values.get("name", "").startswith("dsv::calls::"):
                yield self.function(values)

    def members(self, node):
        name = attributes(node)["name"]
        if name not in self.classes:
            return
        yield f"class {self.classes[name]}:"
        for member in node.iter("cdecl"):
            values = attributes(member)
            if "sym_name" not in values or "feature_ignore" in values or values.get("decl", "").startswith("p."):
                continue  # pointers stay behind
            if values["kind"] == "function":
                if values.get("access", "public") == "public":
                    yield "    " + self.function(values, ["self"])
            else:
                kind = "bool" if values["sym_name"] in self.booleans else self.given({"decl": "", **values})
                yield f"    {values['sym_name']}: {kind}"


def main():
    swig, include, interface, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "dsv.xml")
        subprocess.run([swig, "-xml", "-c++", "-w302", f"-I{include}", "-o", path, interface], check=True)
        tree = xml.etree.ElementTree.parse(path)
    with open(interface) as file:
        (booleans,) = re.findall(r"%apply bool \{(.*?)\}", file.read(), re.S)
    with open(out, "w") as file:
        file.write("\n".join(Module(tree, set(re.findall(r"int32_t (\w+)", booleans))).lines()) + "\n")


main()
