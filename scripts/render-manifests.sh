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
