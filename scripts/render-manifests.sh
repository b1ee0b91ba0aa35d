#!/usr/bin/env bash
# Renders deploy/kubernetes from the chart, the same bytes each time; tests/deploy checks that they are up to date.
# With arguments, other manifests: render-manifests.sh VALUES DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
values=${1:-deploy/kubernetes/values.yaml}
out=${2:-deploy/kubernetes}
PATH="$PWD/target/test-tools/chart/bin:$PATH"
command -v helm >/dev/null || { echo "render-manifests: helm is not installed: run scripts/test-deps.sh" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
helm template holdfast deploy/chart --namespace holdfast --kube-version 1.31 --no-hooks --values "$values" --output-dir "$dir" >/dev/null
mkdir -p "$out"
for part in agent coordinator; do
  {
    echo "# Rendered from deploy/chart by scripts/render-manifests.sh: change it there."
    # No Helm will manage these.
    cat "$dir/holdfast/templates/$part"/*.yaml | sed -e '/^ *helm.sh\/chart: /d' -e '/^ *app.kubernetes.io\/managed-by: Helm$/d' -e '/^# Source: /d'
  } > "$out/$part.yaml"
done
# Helm installs these by itself.
{
  echo "# The definitions of deploy/chart/crds, joined by scripts/render-manifests.sh: change them there."
  cat deploy/chart/crds/*.yaml
} > "$out/crds.yaml"
# What a caller's values add beside the two.
for file in "$dir"/holdfast/templates/*.yaml; do
  [ ! -e "$file" ] || cp "$file" "$out/"
done
# The alerts for a Prometheus that reads files, with the chart's thresholds.
if [ $# = 0 ]; then
  mkdir -p deploy/alerts
  helm template holdfast deploy/chart --namespace holdfast --set metrics.prometheusRule.force=true --show-only templates/prometheusrule.yaml |
    target/test-tools/chart/bin/python -c '
import sys, yaml
print("# Rendered from deploy/chart/alerts by scripts/render-manifests.sh: change it there.")
groups = yaml.safe_load(sys.stdin)["spec"]["groups"]
print(yaml.safe_dump({"groups": groups}, sort_keys=False, width=1000), end="")' > deploy/alerts/holdfast.yaml
fi
