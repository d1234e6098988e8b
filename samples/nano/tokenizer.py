"""Trains nano's byte-level BPE on generated text: DeepSeek's pre-tokenizer and special tokens, every digit its own token."""

import json
import re
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from corpus import mixture, source

VOCABULARY = 3072
FIRST = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
LAST = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜"]
PATTERNS = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^""" + "\r\n" + r"""\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+["""
    + "\r\n" + r"""]*|\s*[""" + "\r\n" + r"""]+|\s+(?!\S)|\s+""",
]  # fmt: skip


def texts(count, seed=123):
    g = source.Source(seed)
    markers = re.compile("|".join(map(re.escape, FIRST + LAST)))
    for _ in range(count):
        yield from filter(None, markers.split(mixture.document(g, 2000)["text"]))


def added(content, index, special):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=special)
    return dict(id=index, content=content, **flags)


def train(path, documents=12000):
    """Merges are learnt with digits split singly, so no merge joins digits; the file carries the released patterns."""
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Split(Regex(p), "isolated") for p in [r"\p{N}", *PATTERNS[1:]]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(LAST),
        special_tokens=FIRST,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(documents), trainer)
    data = json.loads(tokenizer.to_str())
    size = len(data["model"]["vocab"])
    data["added_tokens"] = [added(c, i, True) for i, c in enumerate(FIRST)]
    data["added_tokens"] += [added(c, size + i, False) for i, c in enumerate(LAST)]
    steps = [dict(type="Split", pattern=dict(Regex=p), behavior="Isolated", invert=False) for p in PATTERNS]
    steps.append(dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=False))
    data["pre_tokenizer"] = dict(type="Sequence", pretokenizers=steps)
    data["normalizer"] = dict(type="Sequence", normalizers=[])
    data["decoder"] = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True)
    data["post_processor"] = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(data, file, ensure_ascii=False)
    assert size + len(LAST) == VOCABULARY, size


if __name__ == "__main__":
    train(sys.argv[1])
