#!/usr/bin/env bash
# Runs the integration suites that face a server with several serving processes behind it: scripts/suites_with_processes.sh [N…]
#
# Every `dimml serve` that a test starts has DIMML_PROCESSES, unless the test itself says how many processes it wants. By
# default 2, then 4. What a server of several processes refuses, or what a test counts in the one process that it started,
# is left out by name below; PYTEST_ARGS is for more.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
suites=(tests/integration/http tests/integration/kserve tests/integration/observability tests/integration/security
    tests/integration/versions tests/integration/test_keepalive.py tests/integration/test_lifecycle.py)
left_out=()
while read -r name; do
    [[ -z $name || $name == \#* ]] || left_out+=(--deselect "$name")
done < scripts/suites_with_processes.txt
failed=0
for processes in "${@:-2 4}"; do
    for number in $processes; do
        echo "--processes $number"
        # shellcheck disable=SC2086  # PYTEST_ARGS are several words
        DIMML_PROCESSES=$number OMP_NUM_THREADS=1 "$python" -m pytest -q -p no:cacheprovider "${left_out[@]}" \
            ${PYTEST_ARGS:-} "${suites[@]}" || failed=1
    done
done
exit "$failed"
