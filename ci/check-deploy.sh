#!/usr/bin/env bash
# Checks the files of deploy/ without running them: the unit and its exposure with systemd-analyze, if installed; the Compose
# files against the Compose specification, and that every service in them drops the rights it does not need.
#
#   ci/check-deploy.sh [--venv FOLDER]
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$HERE/lib.sh"

VENV=${OCTOPUS_VENV:-$HERE/../target/venv}
case ${1-} in
  --venv) VENV=${2:?--venv requires a folder} ;;
  '') ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
DEPLOY=$HERE/../deploy
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

if command -v systemd-analyze >/dev/null; then
  # verify requires that the program of ExecStart exists
  sed "s|^ExecStart=/usr/local/bin/octopus|ExecStart=$(command -v true)|" "$DEPLOY/octopus.service" >"$FOLDER/octopus.service"
  output=$(systemd-analyze verify --man=no "$FOLDER/octopus.service" 2>&1) || die "the unit: $output"
  [ -z "$output" ] || die "the unit: $output"
  systemd-analyze security --offline=true --threshold=12 "$FOLDER/octopus.service" >"$FOLDER/exposure" ||
    die "the unit is too exposed: $(cat "$FOLDER/exposure")"
  # without the emoji at its end
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
            continue  # an addition to a service of another file
        missing = [setting for setting, present in {
            "read_only": service.get("read_only") is True,
            "cap_drop": service.get("cap_drop") == ["ALL"],
            "no-new-privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "limits": {"memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(),
            "logging": "max-size" in service["logging"]["options"],
        }.items() if not present]
        if missing:
            sys.exit(f"error: {path}: {name} lacks {', '.join(missing)}")
PYTHON
passed 'the Compose files'
