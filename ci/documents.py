#!/usr/bin/env python3
"""Checks the documentation without running its commands. docs/CHECKS.md lists the checks that run them.

Links and anchors resolve. The files, scripts, options, subcommands, tests and benches that a page names exist. Shell and
Python blocks parse. .env.example lists every setting. docs/CHECKS.md has a row for every section with commands and for every
script, deploy file and bench; the row of a script that .ci/run does not run says so.

Subcommands and test names are compared with the newest debug build in target/, which must exist.
"""

import glob
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md", "SECURITY.md", "ci/README.md", "scripts/README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT))]
CHECKS = "docs/CHECKS.md"
COMMANDS = ("bash", "sh", "powershell")
# Paths that a reader creates by following the page.
CREATED_BY_READER = re.compile(r"src/features/notes|tests/notes\.rs|migrations/\w+/\d+_notes\.sql")
PATH = re.compile(r"(?<![\w/.-])(?:scripts|ci|deploy|docs|tests|benches|src|migrations|\.ci|\.cargo)/[\w./-]*[\w]")
problems = []


def report(page, line, text):
    problems.append(f"{page}:{line}: {text}")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def slug(heading):
    """The anchor that GitHub gives a heading."""
    heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class Page:
    """A Markdown page: anchors, prose as (line, text), and code blocks as (line, anchor, language, text)."""

    def __init__(self, path):
        self.path, self.anchors, self.prose, self.blocks = path, [], [], []
        block = None
        for number, line in enumerate(read(path).splitlines(), start=1):
            if line.startswith("```"):
                if block is None:
                    block = (number, self.anchors[-1] if self.anchors else "", line[3:].strip(), [])
                else:
                    self.blocks.append((*block[:3], "\n".join(block[3])))
                    block = None
            elif block is not None:
                block[3].append(line)
            else:
                if heading := re.match(r"#+ (.*)", line):
                    anchor = slug(heading[1])
                    earlier = self.anchors.count(anchor)
                    self.anchors.append(f"{anchor}-{earlier}" if earlier else anchor)
                self.prose.append((number, line))

    def links(self):
        """Each link to a file or an anchor of the repository, as (line, path, anchor)."""
        for number, line in self.prose:
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if not re.match(r"\w+:", target):
                    path, _, anchor = target.partition("#")
                    folder = os.path.dirname(self.path)
                    yield number, os.path.normpath(os.path.join(folder, path)) if path else self.path, anchor

    def code(self):
        """Each inline code span and each line of a command block, as (line, text)."""
        for number, line in self.prose:
            for text in re.findall(r"`([^`]+)`", line):
                yield number, text
        for number, _, language, text in self.blocks:
            if language in COMMANDS:
                for offset, line in enumerate(text.splitlines(), start=1):
                    yield number + offset, line


def check_links(pages):
    for page in pages.values():
        for number, path, anchor in page.links():
            if not os.path.exists(os.path.join(ROOT, path)):
                report(page.path, number, f"{path} does not exist")
            elif anchor and path in pages and anchor not in pages[path].anchors:
                report(page.path, number, f"{path} has no heading #{anchor}")


def check_paths(pages):
    for page in pages.values():
        for number, text in page.code():
            for path in PATH.findall(text):
                # a script named without .sh or .ps1 stands for both
                if not CREATED_BY_READER.match(path) and not glob.glob(os.path.join(ROOT, path) + "*"):
                    report(page.path, number, f"{path} does not exist")


def check_blocks(pages):
    for page in pages.values():
        for number, _, language, text in page.blocks:
            if language in ("bash", "sh"):
                shell = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
                if shell.returncode:
                    report(page.path, number, f"bash cannot parse this block: {shell.stderr.strip()}")
            elif language == "python":
                try:
                    compile(text, page.path, "exec")
                except SyntaxError as error:
                    report(page.path, number, f"Python cannot parse this block: {error}")


def newest(pattern):
    found = [path for path in glob.glob(os.path.join(ROOT, pattern)) if os.access(path, os.X_OK)]
    if not found:
        sys.exit(f"nothing matches {pattern}: run `cargo test --no-run` first")
    return max(found, key=os.path.getmtime)


def output(*command):
    return subprocess.run(command, text=True, capture_output=True, check=False, cwd=ROOT).stdout


def check_commands(pages):
    program = newest("target/debug/octopus")
    tests = re.findall(r"(\S+): test$", output(newest("target/debug/deps/it-????????????????"), "--list"), re.M)
    benches = re.findall(r'\[\[bench\]\]\nname = "(\w+)"', read("Cargo.toml"))
    helps = {}

    def help_of(*words):
        if words not in helps:
            helps[words] = output(program, *words, "--help")
        return helps[words]

    for page in pages.values():
        for number, text in page.code():
            text = re.sub(r"(^| )#.*", "", text)
            calls = re.findall(r"(?:^|-- |[;|&(] *|\b[A-Z_]+=\S+ |/bin/)octopus ((?:[a-z-]+|--[a-z-]+)(?: [^;|&)]*)?)", text)
            for words in map(str.split, calls):
                if words[0].startswith("-"):
                    continue
                if words[0] not in re.findall(r"^  ([a-z-]+)", help_of(), re.M):
                    report(page.path, number, f"octopus has no command {words[0]}")
                    continue
                known = help_of(words[0])
                if words[0] == "keys" and len(words) > 1 and words[1].isalpha():
                    if words[1] not in re.findall(r"^  ([a-z-]+)", known, re.M):
                        report(page.path, number, f"octopus has no command {' '.join(words[:2])}")
                    known = help_of(*words[:2])
                for option in (word for word in words if re.fullmatch(r"--[a-z-]+", word)):
                    if option not in known:
                        report(page.path, number, f"octopus {words[0]} has no option {option}")
            for words in re.findall(r"cargo test (?:--test it -- )?([\w:]+)", text):
                if not any(words in test for test in tests) and words != "notes" and "NAME" not in words:
                    report(page.path, number, f"no test name contains {words}")
            for bench in re.findall(r"--bench (\w+)", text):
                if bench not in benches:
                    report(page.path, number, f"there is no bench {bench}")
            for script, options in re.findall(r"(?<![\w/.-])((?:scripts|ci)/[\w-]+\.sh)([^|;&#]*)", text):
                if os.path.exists(os.path.join(ROOT, script)):
                    for option in re.findall(r"(?<!\S)--[a-z-]+", options):
                        if option not in read(script):
                            report(page.path, number, f"{script} has no option {option}")


def check_table(pages):
    """docs/CHECKS.md has a row for every section with commands, script, deploy file and bench."""
    table = pages[CHECKS]
    linked = {(path, anchor) for _, path, anchor in table.links()}
    # Pages outside docs/ are named, not linked: the book of docs/ does not have them.
    linked |= {(text, "") for _, text in table.code() if text in pages}
    for page in pages.values():
        for number, anchor, language, _ in page.blocks:
            if language in COMMANDS and not {(page.path, ""), (page.path, anchor)} & linked:
                report(page.path, number, f"{CHECKS} has no row for the commands of #{anchor}")
    run, rows = read(".ci/run"), [line for _, line in table.prose if line.startswith("|")]
    for pattern in ("scripts/*.sh", "scripts/*.ps1", "scripts/*.py", "ci/*.sh", "ci/*.py", "deploy/*", "benches/*.rs"):
        for path in sorted(glob.glob(pattern, root_dir=ROOT)):
            named = [row for row in rows if os.path.basename(path) in row]
            if not named:
                report(CHECKS, 1, f"no row for {path}")
            elif path.endswith(".sh") and path not in run and all("not checked" not in row.lower() for row in named):
                report(CHECKS, 1, f".ci/run does not run {path}: its row must say `not checked`, and what is")


def check_settings():
    """.env.example has the settings that src/core/config reads and no others. NAME_FILE needs no line beside NAME."""
    read_by_program = set()
    for path in glob.glob("src/core/config/*.rs", root_dir=ROOT):
        read_by_program |= set(re.findall(r'"([A-Z][A-Z_0-9]{3,})"', read(path)))
    example = set(re.findall(r"^#?([A-Z][A-Z_0-9]*)=", read(".env.example"), re.M))
    for name in sorted(read_by_program - example):
        if not (name.endswith("_FILE") and name.removesuffix("_FILE") in example):
            report(".env.example", 1, f"{name} is missing")
    for name in sorted(example - read_by_program):
        report(".env.example", 1, f"the program does not read {name}")


def main():
    pages = {path: Page(path) for path in PAGES}
    check_links(pages)
    check_paths(pages)
    check_blocks(pages)
    check_commands(pages)
    check_settings()
    if CHECKS in pages:
        check_table(pages)
    else:
        report(CHECKS, 1, "is missing")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(pages)} pages, {len(problems)} problems")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
