#!/usr/bin/env bash
# Prints the three Secrets that the plain manifests refer to, with a new passphrase and new certificates, and a ConfigMap
# with the authority's certificate alone, which `kubectl holdfast` trusts:
#   deploy/kubernetes/secrets.sh > holdfast-secrets.yaml && kubectl create -f holdfast-secrets.yaml
# KEEP THE FILE OUTSIDE THE CLUSTER: without the passphrase in it nobody can read the backups. `create`, not `apply`: it
# refuses to replace what is there.
set -euo pipefail
umask 077
namespace=${1:-holdfast}
days=3650
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

new_key ca.key
openssl req -x509 -new -key ca.key -days "$days" -subj '/CN=holdfast authority' -out ca.crt \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign

# NAME USAGE SUBJECT-ALTERNATIVE-NAMES
certificate() {
  new_key "$1.key"
  printf '%s\n' "subjectAltName=$3" "extendedKeyUsage=$2" keyUsage=critical,digitalSignature \
    basicConstraints=critical,CA:FALSE > "$1.ext"
  openssl req -new -key "$1.key" -subj "/CN=holdfast-$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days "$days" -extfile "$1.ext" -out "$1.crt" 2>/dev/null
}

service=holdfast-coordinator
certificate coordinator serverAuth \
  "DNS:$service.$namespace.svc,DNS:$service.$namespace,DNS:$service,DNS:$service.$namespace.svc.cluster.local,DNS:localhost,IP:127.0.0.1"
certificate agent clientAuth DNS:holdfast-agent

encoded() { base64 < "$1" | tr -d '\n'; }

# NAME CERTIFICATE
secret() {
  cat <<YAML
---
apiVersion: v1
kind: Secret
metadata:
  name: $1
  namespace: $namespace
type: kubernetes.io/tls
data:
  ca.crt: $(encoded ca.crt)
  tls.crt: $(encoded "$2.crt")
  tls.key: $(encoded "$2.key")
YAML
}

cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: holdfast-encryption
  namespace: $namespace
type: Opaque
immutable: true
stringData:
  passphrase: "$(openssl rand -hex 32)"
YAML
secret holdfast-tls coordinator
secret holdfast-agent-tls agent
cat <<YAML
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: $service-trust
  namespace: $namespace
  labels: {app.kubernetes.io/part-of: holdfast, app.kubernetes.io/component: trust}
data:
  server-name: $service.$namespace.svc
  ca.crt: |
$(sed 's/^/    /' ca.crt)
YAML
