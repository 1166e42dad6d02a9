#!/usr/bin/env bash
# Checks the syntax of PowerShell scripts without PowerShell: parses them with the tree-sitter grammar and prints
# file:line:column of each syntax error. Needs python3.
#
#   ci/check-powershell.sh [--venv FOLDER] [FILE.ps1 ...]
#
# FOLDER holds the Python packages and is kept (default: a temporary folder). Without files, it checks all in scripts/.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

VENV=
if [ "${1-}" = --venv ]; then
  [ $# -ge 2 ] || die "--venv requires a folder"
  VENV=$2
  shift 2
fi
if [ -z "$VENV" ]; then
  VENV=$(mktemp -d)
  trap 'rm -rf "$VENV"' EXIT
fi
[ $# -gt 0 ] || set -- "$HERE"/../scripts/*.ps1

use_venv "$VENV" tree-sitter==0.26.1 tree-sitter-powershell==0.26.4
"$VENV/bin/python" - "$@" <<'PYTHON'
import sys

import tree_sitter
import tree_sitter_powershell

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_powershell.language()))
problems = 0


def report(path, line, column, problem):
    global problems
    problems += 1
    print(f"{path}:{line}:{column}: {problem}", file=sys.stderr)


def check(path, node):
    line, column = node.start_point[0] + 1, node.start_point[1] + 1
    if node.is_missing:
        report(path, line, column, f"missing {node.type}")
    elif node.is_error:
        report(path, line, column, f"syntax error near {node.text.decode(errors='replace')[:60]!r}")
    elif node.has_error:
        for child in node.children:
            check(path, child)


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        source = file.read()
    check(path, parser.parse(source).root_node)
    for number, text in enumerate(source.split(b"\n"), start=1):
        if not text.isascii():  # Windows PowerShell reads a file without a byte order mark in the local code page
            report(path, number, 1, "non-ASCII character")

print(f"{len(sys.argv) - 1} PowerShell files, {problems} problems")
sys.exit(1 if problems else 0)
PYTHON
