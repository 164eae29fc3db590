#!/usr/bin/env bash
# From a fresh Debian 12 or 13 to a trained, evaluated segmentation on synthetic volumes: installs what
# is missing, builds, makes a data set, runs both stages and the evaluation.
#
#   bash examples/quickstart.sh [further options of `strata run`]
set -euo pipefail
cd "$(dirname "$0")/.."

bash examples/setup.sh
cmake --preset release -DSTRATA_TESTS=OFF >/dev/null
cmake --build --preset release --target strata

if [ ! -f phantom/dataset.json ]; then
  build/strata phantom phantom --cases 30 --organs 4
fi
build/strata run pipelines/quickstart.yaml --set data.root=phantom "$@"
