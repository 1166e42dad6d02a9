#!/usr/bin/env bash
# Checks the files of deploy/ without running them: the unit with systemd-analyze, where that is installed, its exposure
# too; the Compose files by the Compose specification, and that no service in them has more rights than it needs.
#
#   scripts/check-deploy.sh [--venv FOLDER]
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

VENV=${OCTOPUS_VENV:-$HERE/../target/venv}
case ${1-} in
  --venv) VENV=${2:?--venv wants a folder} ;;
  '') ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
DEPLOY=$HERE/../deploy
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

if command -v systemd-analyze >/dev/null; then
  # with a program that is there
  sed "s|^ExecStart=/usr/local/bin/octopus|ExecStart=$(command -v true)|" "$DEPLOY/octopus.service" >"$FOLDER/octopus.service"
  said=$(systemd-analyze verify --man=no "$FOLDER/octopus.service" 2>&1) || die "the unit: $said"
  [ -z "$said" ] || die "the unit: $said"
  systemd-analyze security --offline=true --threshold=12 "$FOLDER/octopus.service" >"$FOLDER/exposure" ||
    die "the unit is too exposed: $(cat "$FOLDER/exposure")"
  # in words, without the picture at its end
  passed "the unit: $(grep -o 'exposure level.*: [0-9.]*' "$FOLDER/exposure" | tail -n 1)"
else
  echo 'systemd-analyze is not installed: the unit was not checked'
fi

mkdir -p "$VENV"
use_venv "$VENV" compose-spec==0.2.1 PyYAML==6.0.3
"$VENV/bin/python" - "$DEPLOY"/compose*.yaml <<'PYTHON'
import sys, yaml
from compose_spec import PyCompose
for path in sys.argv[1:]:
    text = open(path).read()
    PyCompose.from_yaml(text)
    for name, service in yaml.safe_load(text)["services"].items():
        if "image" not in service:
            continue  # more of a service of another file
        wrong = [what for what, good in {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "no-new-privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "limits": {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(),
            "logging": "max-size" in service["logging"]["options"],
        }.items() if not good]
        if wrong:
            sys.exit(f"error: {path}: {name} lacks {', '.join(wrong)}")
PYTHON
passed 'the Compose files'
