"""The random source of all documents: one seeded generator, with values and phrasings held out for evaluation by hash."""

import json
import random
import re
import zlib

from corpus.words import CITY, COMMON, COUNTRY, FIRST, LAST, SYLLABLES, WORDS


def dumps(value):
    """JSON text as the official encoding writes it."""
    return json.dumps(value, ensure_ascii=False)


def bucket(text, n):
    return zlib.crc32(text.encode()) % n


def cap(text):
    return text[:1].upper() + text[1:]


def an(text):
    return ("an " if text[0] in "aeiou" else "a ") + text


ACCENTED = "éèêëáàâäãåíïóòôöõøúùûüñçßœæÉÄÖÜČščžł"
OTHER_SCRIPTS = ["абвгдежзиклмнопрстуя", "αβγδεζθλμνξπρσφω", "日本語文書中国年月日新", "가나다라마한국어"]
SHORT_FORMS = [
    ("What is ", "What's "),
    ("Where is ", "Where's "),
    ("Who is ", "Who's "),
    ("I am ", "I'm "),
    ("do not ", "don't "),
    ("Please ", "Pls "),
    ("please ", "pls "),
    (" you ", " u "),
    (" are ", " r "),
    (" and ", " & "),
    ("I would ", "I'd "),
    ("I will ", "I'll "),
    ("cannot ", "can't "),
    ("Thank you", "Thx"),
    (" to ", " 2 "),
]


class Source:
    """held_out_values: invented names, codes and numbers come from the held-out tenth of the hash space, else from the rest.
    held_out_wording: the last template of a list, and one in eight combinations of phrase parts, else the others.
    noise: None leaves wording noise to chance, 0 switches it off, 1 forces typos or lower case."""

    def __init__(self, seed, held_out_values=False, held_out_wording=False, noise=None):
        self.r = random.Random(seed)
        self.ho = held_out_values
        self.hot = held_out_wording
        self.noise_level = noise

    def c(self, options):
        return options[int(self.r.random() * len(options))]

    def t(self, templates):
        if len(templates) < 3:
            return self.c(templates)
        return templates[-1] if self.hot else templates[int(self.r.random() * (len(templates) - 1))]

    def n(self, low, high):
        return self.r.randint(low, high)

    def p(self, chance):
        return self.r.random() < chance

    def combo(self, *lists):
        while True:
            parts = [self.c(options) for options in lists]
            if (bucket("|".join(parts), 8) == 0) == self.hot:
                return parts

    def split(self, make):
        while True:
            value = make()
            if (bucket(str(value), 10) == 0) == self.ho:
                return value

    def syl(self, low=2, high=3):
        if self.p(0.25):

            def spell():
                parts = []
                for _ in range(self.n(1, 3)):
                    parts.append(self.c("bcdfghjklmnprstvwz") + self.c("aeiouy"))
                    if self.p(0.5):
                        parts.append(self.c("bdfgklmnprstx"))
                return "".join(parts)

            return self.split(spell)
        return self.split(lambda: "".join(self.c(SYLLABLES) for _ in range(self.n(low, high))))

    def Name(self):
        return self.syl().capitalize()

    def person(self):
        k = self.n(0, 5)
        if k < 2:
            return self.c(FIRST)
        if k == 2:
            return self.split(lambda: self.c(FIRST) + " " + self.c(LAST))
        return self.Name() if k < 5 else self.Name() + " " + self.Name()

    def city(self):
        return self.c(CITY) if self.p(0.6) else self.Name()

    def two(self):
        return self.split(lambda: self.c(WORDS) + "-" + self.c(WORDS))

    def words(self, low=1, high=4):
        return self.split(lambda: " ".join(self.c(COMMON if self.p(0.6) else WORDS) for _ in range(self.n(low, high))))

    def date(self):
        return self.split(lambda: "%d-%02d-%02d" % (self.n(2020, 2031), self.n(1, 12), self.n(1, 28)))

    def clock(self):
        return "%02d:%02d" % (self.n(0, 23), self.n(0, 59))

    def num(self, digits=4):
        return self.split(lambda: self.n(10 ** (digits - 1), 10**digits - 1))

    def code(self):
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        return self.split(lambda: "".join(self.c(letters) for _ in range(self.n(1, 3))) + "-" + str(self.n(10, 99999)))

    def letters(self, low=3, high=9):
        """Letters and digits without any order: copying must not lean on known words."""
        usual = ["abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefxyz0123456789"]
        alphabet = self.c(usual + [ACCENTED + "abcdeghilmnorstu"])
        return self.split(lambda: "".join(self.c(alphabet) for _ in range(self.n(low, high))))

    def filename(self, wide=False):
        """wide: also names of several words and with letters outside ASCII, which only quotes or the ending tell apart from the request"""
        if wide and self.p(0.25):
            part = lambda: self.c([self.c(COMMON), self.c(WORDS), self.syl(), self.c("my our the old new last a".split()), str(self.n(1, 2030))])
            words = [part() for _ in range(self.c([1, 2, 2, 2, 3]))]
            if len(words) == 1 or self.p(0.5):
                words[self.n(0, len(words) - 1)] = self.foreign()
            if self.p(0.2):
                words = [cap(word) for word in words]
            return self.c([" ", " ", " ", "-", "_"]).join(words) + "." + self.c("txt txt txt md log csv json html pdf".split())
        if self.p(0.2):
            usual = "README LICENSE Makefile CMakeLists.txt README.md main.cpp main.py index.html notes.txt todo.txt config.json CHANGELOG.md"
            return self.c(usual.split())
        if self.p(0.15):
            return self.letters() + "." + self.c("txt md cpp h c js sh xml yaml toml rs java".split())
        stem = self.c([self.c(COMMON), self.c(WORDS), self.syl(), self.c(COMMON) + self.c("_-") + self.c(WORDS)])
        return stem + "." + self.c("txt txt txt md log csv json py html cfg".split())

    def foreign(self):
        """A word with letters outside ASCII."""
        kind = self.n(0, 5)
        if kind == 0:
            script = self.c(OTHER_SCRIPTS)
            return self.split(lambda: "".join(self.c(script) for _ in range(self.n(1, 4))))
        if kind == 1:
            return self.c(ACCENTED)
        word = list(self.c([self.c(COMMON), self.c(WORDS), self.syl()]))
        for _ in range(self.n(1, 2)):
            word[self.n(0, len(word) - 1)] = self.c(ACCENTED)
        return "".join(word)

    def path(self, wide=False):
        return "/".join([self.c(WORDS + COMMON) for _ in range(self.n(0, 2))] + [self.filename(wide)])

    def email(self):
        return f"{self.person().lower().replace(' ', '.')}@{self.c(WORDS)}.{self.c(['com', 'org', 'net'])}"

    def value(self):
        """A short string: what stands in ledgers, passwords and string arguments."""
        makers = [
            lambda: str(self.num(self.n(2, 5))),
            self.two,
            self.code,
            self.Name,
            lambda: self.two() + "-" + str(self.n(1, 99)),
            lambda: self.c(WORDS),
            lambda: str(self.n(0, 99)),
            lambda: self.c(COMMON),
            self.city,
            self.letters if self.p(0.5) else self.city,
        ]
        return self.c(makers)()

    def text(self):
        """A string argument of any sort."""
        makers = [
            self.value,
            self.value,
            self.value,
            self.value,
            self.words,
            self.words,
            self.person,
            self.city,
            self.date,
            self.clock,
            self.path,
            self.email,
            lambda: self.c(COUNTRY),
            lambda: cap(self.words(2, 6)),
            lambda: self.syl() + str(self.n(0, 99)),
        ]
        return self.c(makers)()

    def misspell(self, word):
        i = self.n(1, len(word) - 2)
        k = self.n(0, 3)
        if k == 0:
            return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
        if k == 1:
            return word[:i] + word[i + 1 :]
        if k == 2:
            return word[:i] + word[i] + word[i:]
        return word[:i] + self.c("abcdefghijklmnopqrstuvwxyz") + word[i + 1 :]

    def noise(self, template):
        """Typos, lower case, short forms and lost punctuation. Text between braces (values) is left alone."""
        if self.noise_level == 0 or (self.noise_level is None and not self.p(0.4)):
            return template
        pieces = re.split(r"(\{[^{}]*\})", template)
        one = lambda: self.c([0, 0, 1, 1, 2, 3, 4])
        kinds = {one()} if self.p(0.75) else {one(), one()}
        if self.noise_level == 1:
            kinds = {self.c([0, 1])} if self.p(0.7) else {0, 1}
        for i in range(0, len(pieces), 2):
            piece = pieces[i]
            if 2 in kinds:
                for long, short in SHORT_FORMS:
                    if self.p(0.7):
                        piece = piece.replace(long, short)
            if 1 in kinds:
                piece = piece.lower()
            if 0 in kinds:
                chance = self.c([0.15, 0.3]) if self.noise_level is None else 0.25
                piece = re.sub(r"[A-Za-z]{4,}", lambda m: self.misspell(m.group()) if self.p(chance) else m.group(), piece)
            pieces[i] = piece
        out = "".join(pieces)
        if 3 in kinds:
            out = out.rstrip("?.! ")
        if 4 in kinds:
            out = out.replace(",", "").rstrip("?.! ") + self.c(["", "??", "!", " ...", " :)", "?"])
        return out


OPENERS = [
    "Excuse me, ",
    "Please tell me: ",
    "Quick question: ",
    "Hi! ",
    "Tell me, ",
    "I wonder: ",
    "One more thing. ",
    "Hello, ",
    "Hey, ",
    "By the way, ",
    "Okay. ",
    "So, ",
    "Good day. ",
    "And ",
    "Right, ",
    "Sorry to bother you. ",
    "I am new here. ",
    "Next question: ",
    "Hm, ",
    "Well, ",
    "Now: ",
    "Thanks. ",
    "Great. ",
    "I have a question. ",
    "Can you help? ",
    "Listen, ",
]
CLOSERS = [
    " Thanks!",
    " Please.",
    " I need to know.",
    " Be brief.",
    " Thank you.",
    " It is urgent.",
    " Do you know?",
    " Just tell me.",
]


def vary(g, question, chance=0.35):
    """Adds an opener or a closer, then noise."""
    if g.noise_level != 1 and g.p(chance):
        if g.p(0.7):
            question = g.c(OPENERS) + question
        else:
            question += g.c(CLOSERS)
    return g.noise(question)


def fill(template, fields):
    """Puts values in the place of {names}; unknown braces stay."""
    return re.sub(r"\{(\w+)\}", lambda m: str(fields.get(m.group(1), m.group(0))), template)
