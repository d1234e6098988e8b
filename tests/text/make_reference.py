#!/usr/bin/env python3
"""Writes data/reference.json: what Hugging Face `tokenizers` makes of the seeded corpus.

    pip install tokenizers xxhash zstandard
    make_reference.py path/to/write_corpus

For each tokenizer the xxhash64 of its file; for each section of the corpus the number and the xxhash64 of its bytes
and of its ids. Texts are hashed as their size (uint32) and bytes, ids as their number (uint32) and themselves
(int32), text after text. Bytes that are not UTF-8 are decoded as Python does with errors="replace". The reference
also decodes the ids, skipping nothing: what it gives back has to be the text.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import tokenizers
import xxhash
import zstandard

HERE = Path(__file__).resolve().parent
TOKENIZERS = {
    "deepseek_v3": HERE / "data/deepseek_v3_tokenizer.json.zst",
    "nano": HERE.parent.parent / "samples/nano/checkpoint/tokenizer.json",
}


def read_sections(data):
    at = 0

    def number():
        nonlocal at
        at += 4
        return struct.unpack_from("<I", data, at - 4)[0]

    def string():
        nonlocal at
        size = number()
        at += size
        return data[at - size : at]

    while at < len(data):
        name = string().decode()
        yield name, [string() for _ in range(number())]


def encode_section(tokenizer, texts):
    count, ids_hash = 0, xxhash.xxh64()
    decoded = [text.decode("utf-8", "replace") for text in texts]
    for text, encoding in zip(decoded, tokenizer.encode_batch(decoded, add_special_tokens=False)):
        ids = encoding.ids
        if tokenizer.decode(ids, skip_special_tokens=False) != text:
            sys.exit(f"the reference does not give {text[:80]!r} back")
        ids_hash.update(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids))
        count += len(ids)
    return {"ids": count, "ids_xxh64": ids_hash.hexdigest()}


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus"
        subprocess.run([sys.argv[1], path], check=True)
        sections = list(read_sections(path.read_bytes()))
    reference = {"tokenizers": tokenizers.__version__, "corpus": {}, "files": {}}
    for name, texts in sections:
        text_hash = xxhash.xxh64()
        for text in texts:
            text_hash.update(struct.pack("<I", len(text)) + text)
        reference["corpus"][name] = {"bytes": sum(map(len, texts)), "texts_xxh64": text_hash.hexdigest()}
    for name, path in TOKENIZERS.items():
        data = path.read_bytes()
        if path.suffix == ".zst":
            data = zstandard.ZstdDecompressor().decompress(data)
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
        reference["files"][name] = {
            "file_xxh64": xxhash.xxh64(data).hexdigest(),
            "sections": {section: encode_section(tokenizer, texts) for section, texts in sections},
        }
    (HERE / "data/reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
