"""The whole evaluation through `dsv eval`, on every core: report.md, report.json and failures.jsonl.

python report.py [--dsv BIN] [--checkpoint DIR] [--suites DIR] [--out DIR] [--limit SECONDS] [--backend cuda:0 --jobs 4]

Without --suites they are generated (suites.py), with it DIR holds them as GROUP.jsonl or GROUP.jsonl.xz. Work that is
done is kept in OUT/work-*: after --limit, the same command goes on. The order of the work is that of the questions: first
what each behaviour reaches, then `exact` and dense attention beside it, long contexts, and last what the MTP layer
drafts. Needs Python only, unless it generates suites. Intervals are those of `dsv eval`: Wilson's for shares, Agresti and Min's for paired differences.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import lzma
import math
import os
import subprocess
import sys
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
# title, suites, percent that held-out values must reach; held-out wording may be 8 points under it
GOALS = [
    ("world facts", ("facts", "facts_thinking"), 99),
    ("several turns", ("multi_turn",), 97),
    ("persona", ("persona",), 97),
    ("known tools", ("known_tools", "known_tools_thinking"), 99),
    ("unseen tools, fitting names", ("fitting_tools", "fitting_tools_thinking"), 95),
    ("unseen tools, opaque names", ("opaque_tools", "opaque_tools_thinking"), 80),
    ("two calls at once, unseen tools", ("several_fitting", "several_fitting_thinking", "several_opaque"), 80),
    ("no tool needed", ("no_call",), 99),
    ("answers from results", ("results", "results_thinking"), 99),
    ("sums with steps", ("sums_thinking",), 95),
    ("sums, direct", ("sums_direct",), 90),
    ("outside its world: does not know", ("outside",), 95),
]
LONG_GOALS = {"retrieval_512": 99, "retrieval_1024": 99, "retrieval_2048": 99, "retrieval_4096": 99, "retrieval_8192": 90}
WORDING, TYPOS, MTP, LOSS = 8, 90, 90, -1.0
# Cases a suite that are run in `exact` and with dense attention, too: of the behaviours, and of contexts beyond 2K.
PAIRS, LONG_PAIRS = 50, 100
GROUPS = ("values", "wording", "typos", "long")
# Cases per process: about ten seconds of one core.
SLICE = {"retrieval_512": 40, "retrieval_1024": 20, "retrieval_2048": 8, "retrieval_4096": 4, "retrieval_8192": 1}
Z = 1.959963984540054


def wilson(passed, count):
    share, z2 = passed / count, Z * Z / count
    middle, half = share + z2 / 2, Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


def identities(lines):
    return [json.loads(line)["id"] for line in lines]


def paired(first, second):
    """Second run minus first over the cases of both."""
    both = first.keys() & second.keys()
    lost = sum(first[i] and not second[i] for i in both)
    won = sum(second[i] and not first[i] for i in both)
    if not both:
        return None
    n = len(both) + 2
    middle = (won - lost) / n
    half = Z * math.sqrt(max(0.0, (won + lost + 1) / n - middle * middle) / n)
    low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return dict(cases=len(both), lost=lost, won=won, points=100 * (won - lost) / len(both), low=100 * low, high=100 * high)


def read(folder, group):
    """-> {suite: lines}"""
    path = os.path.join(folder, group + ".jsonl")
    file = open(path, encoding="utf-8") if os.path.exists(path) else lzma.open(path + ".xz", "rt", encoding="utf-8")
    suites = {}
    with file:
        for line in file:
            suites.setdefault(json.loads(line)["suite"], []).append(line)
    return suites


def with_topk(checkpoint, folder, topk=None):
    """The checkpoint with another index_topk; without one it leaves no token out: dense attention by the same code."""
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(checkpoint):
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            os.symlink(os.path.abspath(os.path.join(checkpoint, name)), path)
    with open(os.path.join(checkpoint, "config.json")) as file:
        config = json.load(file)
    config["index_topk"] = topk or config["max_position_embeddings"]
    path = os.path.join(folder, "config.json")
    os.remove(path)
    with open(path, "w") as file:
        json.dump(config, file, indent=1)
    return folder


def jobs(groups, drafts, whole):
    """(run, group, suite, lines), in the order of the questions. whole: a suite is one process's work."""

    def cut(run, group, suite, lines, first=None):
        lines = lines[:first]
        step = len(lines) if whole else SLICE.get(suite.replace("_two", "").replace("_thinking", ""), 100)
        for i in range(0, len(lines), step):
            yield run, group, suite, i, lines[i : i + step]

    length = lambda item: int(item[0].split("_")[-1])
    long = sorted(groups["long"].items(), key=length)
    between = lambda least, most: [item for item in long if least < length(item) <= most]
    for group in ("values", "wording", "typos"):
        for suite, lines in groups[group].items():
            yield from cut("official", group, suite, lines)
    for run in ("exact", "dense"):
        for suite, lines in groups["values"].items():
            yield from cut(run, "values", suite, lines, PAIRS)
    for run in ("official", "exact", "dense"):
        for suite, lines in between(0, 2048):
            yield from cut(run, "long", suite, lines)
    for suite, lines in between(2048, math.inf):
        yield from cut("official", "long", suite, lines)
    for run in ("exact", "dense"):
        for suite, lines in between(2048, 4096):
            yield from cut(run, "long", suite, lines, LONG_PAIRS)
    for suite, lines in groups["values"].items():
        yield from cut("mtp", "values", suite, lines, drafts)


def fingerprint(folder):
    """Results that were kept belong to one checkpoint and one backend."""
    digest = hashlib.sha256()
    for name in sorted(os.listdir(folder)):
        if name.endswith((".json", ".safetensors")):
            with open(os.path.join(folder, name), "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()[:12]


class Evaluation:
    def __init__(self, options):
        self.o = options
        self.start = time.time()
        self.work = os.path.join(options.out, f"work-{options.backend.split(':')[0]}-{fingerprint(options.checkpoint)}")
        os.makedirs(self.work, exist_ok=True)
        self.dense = with_topk(options.checkpoint, os.path.join(options.out, "dense"))
        library = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(options.dsv))), "lib")
        paths = [library, os.environ.get("LD_LIBRARY_PATH", "")]
        self.environment = dict(os.environ, LD_LIBRARY_PATH=":".join(filter(None, paths)), OMP_NUM_THREADS="1")
        self.given = collections.defaultdict(dict)  # run -> {id: result}
        for run, path in (item.split("=", 1) for item in options.given):
            with open(path, encoding="utf-8") as file:
                self.given[run].update((r["id"], r) for r in json.load(file)["results"])
        self.results = collections.defaultdict(dict)  # (run, group, suite) -> {id: result}

    def one(self, job):
        """-> the results of a job, or None where the time is up."""
        run, group, suite, first, lines = job
        given = [self.given[run].get(i) for i in identities(lines)]
        if all(given):
            return given
        path = os.path.join(self.work, f"{run}-{suite}-{first:04d}-{zlib.crc32(''.join(lines).encode()):08x}.json")
        if not os.path.exists(path):
            if time.time() - self.start > self.o.limit:
                return None
            cases = path + "l"
            with open(cases, "w", encoding="utf-8") as file:
                file.writelines(lines)
            # On a GPU processes start slowly, and many sessions cost little.
            sessions = 8 if self.o.backend == "cpu" else 16 if group == "long" else 64
            command = [self.o.dsv, "eval", cases, "--json", "--backend", self.o.backend, "--sessions", str(sessions)]
            command += ["--threads", "1"] if self.o.backend == "cpu" else []
            command += ["--model", self.dense if run == "dense" else self.o.checkpoint]
            command += ["--precision", "exact" if run == "exact" else "official", *(["--mtp"] if run == "mtp" else [])]
            with open(path + ".new", "w") as file:
                subprocess.run(command, stdout=file, env=self.environment, check=True)
            os.replace(path + ".new", path)
            os.remove(cases)
        with open(path, encoding="utf-8") as file:
            return json.load(file)["results"]

    def run(self, groups):
        work = list(jobs(groups, self.o.drafts, self.o.backend != "cpu"))
        self.unfinished = done = 0
        shown = time.time()
        with concurrent.futures.ThreadPoolExecutor(self.o.jobs) as pool:
            for job, results in zip(work, pool.map(self.one, work)):
                done += results is not None
                if results is None:
                    self.unfinished += len(job[-1])
                for result in results or []:
                    self.results[job[:3]][result["id"]] = result
                if time.time() - shown > 10:
                    shown = time.time()
                    print(f"{done} of {len(work)} jobs, {shown - self.start:.0f} s: {job[0]} {job[2]}", flush=True)

    def share(self, run, group, suites):
        """Of some suites together."""
        rows = [r["passed"] for s in suites for r in self.results.get((run, group, s), {}).values()]
        if not rows:
            return None
        low, high = wilson(sum(rows), len(rows))
        return dict(cases=len(rows), passed=sum(rows), percent=100 * sum(rows) / len(rows), low=100 * low, high=100 * high)

    def outcomes(self, run, group, suites):
        return {i: r["passed"] for s in suites for i, r in self.results.get((run, group, s), {}).items()}

    def drafts(self, suites):
        rows = [r for s in suites for r in self.results.get(("mtp", "values", s), {}).values()]
        total = sum(r.get("drafts", 0) for r in rows)
        right = sum(r.get("drafts_right", 0) for r in rows)
        if not total:
            return None
        low, high = wilson(right, total)
        return dict(drafts=total, right=right, percent=100 * right / total, low=100 * low, high=100 * high)

    def report(self, groups):
        plain = list(groups["values"])
        goals = [dict(title=t, suites=list(s), goal=g) for t, s, g in GOALS]
        named = {s for _, suites, _ in GOALS for s in suites}
        goals += [dict(title=s, suites=[s], goal=None) for s in plain if s not in named]
        for row in goals:
            row["values"] = self.share("official", "values", row["suites"])
            row["wording"] = self.share("official", "wording", [s + "_wording" for s in row["suites"]])
            row["typos"] = self.share("official", "typos", [s + "_typos" for s in row["suites"]])
        typos = [s + "_typos" for s in plain if s in named]
        long = [dict(suite=s, goal=LONG_GOALS.get(s), **(self.share("official", "long", [s]) or {})) for s in groups["long"]]
        upto = [s for s in groups["long"] if int(s.split("_")[-1]) <= 4096]
        pairs = []
        for name, run in (("`official` minus `exact`", "exact"), ("sparse minus dense", "dense")):
            for title, group, suites in (("prompts of the behaviours", "values", plain), ("retrieval up to 4K", "long", upto)):
                ours, other = self.outcomes("official", group, suites), self.outcomes(run, group, suites)
                pairs.append(dict(title=name, over=title, **(paired(other, ours) or {})))
            ours, other = ({**self.outcomes(r, "values", plain), **self.outcomes(r, "long", upto)} for r in ("official", run))
            pairs.append(dict(title=name, over="both", **(paired(other, ours) or {})))
        suites = [
            dict(run=run, group=group, suite=suite, **self.share(run, group, [suite]))
            for run, group, suite in self.results
            if run != "mtp"
        ]
        return dict(
            seconds=round(time.time() - self.start),
            not_run=self.unfinished,
            behaviours=goals,
            typos=self.share("official", "typos", typos),
            long=long,
            paired=pairs,
            mtp=self.drafts(plain),
            mtp_suites={s: self.drafts([s]) for s in plain},
            suites=suites,
        )

    def failures(self, groups):
        """What `official` got wrong, with the case."""
        for (run, group, suite), results in self.results.items():
            if run == "official":
                for line in groups[group][suite]:
                    case = json.loads(line)
                    result = results.get(case["id"])
                    if result and not result["passed"]:
                        yield dict(result, check=case["check"], thinking=case["thinking"], messages=case["messages"])


def cell(share, goal=None):
    if not share or "percent" not in share:
        return "not run"
    text = f"{share['percent']:.1f} ({share['low']:.1f} to {share['high']:.1f})"
    return text if goal is None or share["percent"] >= goal else f"**{text}**"


def markdown(report):
    out = ["Percent of the cases passed, in brackets the 95% interval; greedy, `official`, held-out values, through `dsv eval`."]
    out.append("Bold: below the goal.")
    if report["not_run"]:
        out.append(f"**Not everything was run: {report['not_run']} cases are missing.**")
    out += ["", "| behaviour | goal | cases | held-out values | wording held out (goal - 8) | typos, lower case |"]
    out.append("|---|---|---|---|---|---|")
    for row in report["behaviours"]:
        goal = row["goal"]
        wording = cell(row["wording"], goal and goal - WORDING)
        typos = cell(row["typos"]) if row["typos"] else ""
        cases = row["values"]["cases"] if row["values"] else 0
        out.append(f"| {row['title']} | {goal or ''} | {cases} | {cell(row['values'], goal)} | {wording} | {typos} |")
    typos = report["typos"]
    count = typos["cases"] if typos else 0
    out.append(f"| typos and lower case, over the behaviours with a goal | {TYPOS} | {count} | | | {cell(typos, TYPOS)} |")
    out += ["", "| long context | goal | cases | found |", "|---|---|---|---|"]
    for row in report["long"]:
        out.append(f"| {row['suite']} | {row['goal'] or ''} | {row.get('cases', 0)} | {cell(row, row['goal'])} |")
    out += ["", f"Paired differences; the interval is to exclude a loss of more than {-LOSS:.0f} point.", ""]
    out += ["| | over | cases | lost | won | points | 95% interval |", "|---|---|---|---|---|---|---|"]
    for row in report["paired"]:
        if "cases" not in row:
            out.append(f"| {row['title']} | {row['over']} | 0 | | | | not run |")
            continue
        span = f"{row['low']:+.2f} to {row['high']:+.2f}"
        span = span if row["low"] > LOSS else f"**{span}**"
        out.append(f"| {row['title']} | {row['over']} | {row['cases']} | {row['lost']} | {row['won']} | {row['points']:+.2f} | {span} |")
    mtp = report["mtp"]
    out += ["", f"MTP: share of drafts that are the token which the model then writes (goal {MTP}): {cell(mtp, MTP)}"]
    if mtp:
        least = min((v["percent"], k) for k, v in report["mtp_suites"].items() if v)
        out[-1] += f" over {mtp['drafts']} drafts; least in {least[1]} ({least[0]:.1f})."
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv", default=os.path.join(TOP, "build/release/bin/dsv"))
    parser.add_argument("--checkpoint", default=os.path.join(HERE, "checkpoint"))
    parser.add_argument("--suites")
    parser.add_argument("--out", default=os.path.join(TOP, "build/report"))
    parser.add_argument("--limit", type=float, default=1e9, help="start no more work after so many seconds")
    parser.add_argument("--backend", default="cpu", help="dsv's, for all runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes of one thread each")
    parser.add_argument("--drafts", type=int, default=20, help="cases a suite for the MTP layer")
    parser.add_argument("--given", metavar="RUN=FILE", action="append", default=[],
                        help="results of `dsv eval --json` on these suites; RUN: official, exact, dense or mtp")  # fmt: skip
    parser.add_argument("--first", type=int, help="only so many cases of each suite")
    options = parser.parse_args()
    if not options.suites:
        options.suites = os.path.join(options.out, "suites")
        if not os.path.exists(os.path.join(options.suites, GROUPS[-1] + ".jsonl")):
            vocabulary = os.path.join(options.checkpoint, "tokenizer.json")
            command = [sys.executable, os.path.join(HERE, "suites.py"), options.suites, "--tokenizer", vocabulary]
            subprocess.run(command, check=True)
    groups = {group: read(options.suites, group) for group in GROUPS}
    for suites in groups.values():
        for suite in suites:
            suites[suite] = suites[suite][: options.first]
    evaluation = Evaluation(options)
    evaluation.run(groups)
    report = evaluation.report(groups)
    with open(os.path.join(options.out, "report.json"), "w") as file:
        json.dump(report, file, indent=1)
    with open(os.path.join(options.out, "failures.jsonl"), "w", encoding="utf-8") as file:
        for row in evaluation.failures(groups):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    text = markdown(report)
    with open(os.path.join(options.out, "report.md"), "w", encoding="utf-8") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
