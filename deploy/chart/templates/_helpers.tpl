{{- /* Names, labels, and what several objects must agree on. */ -}}

{{- define "holdfast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 48 | trimSuffix "-" }}
{{- end }}

{{- /* Room is left for the longest suffix: names of Services end at 63 characters. */ -}}
{{- define "holdfast.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "holdfast.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.coordinator" -}}{{ include "holdfast.fullname" . }}-coordinator{{- end }}
{{- define "holdfast.agent" -}}{{ include "holdfast.fullname" . }}-agent{{- end }}
{{- define "holdfast.helpers" -}}{{ include "holdfast.fullname" . }}-helpers{{- end }}

{{- define "holdfast.selector" -}}
app.kubernetes.io/name: {{ include "holdfast.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: holdfast
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "holdfast.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.coordinator.serviceAccount" -}}
{{- $usual := ternary (include "holdfast.coordinator" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $usual }}
{{- end }}

{{- define "holdfast.agent.serviceAccount" -}}
{{- $usual := ternary (include "holdfast.agent" .) "default" .Values.serviceAccount.create }}
{{- .Values.agent.serviceAccountName | default $usual }}
{{- end }}

{{- define "holdfast.priorityClass" -}}
{{- $usual := ternary (include "holdfast.fullname" .root) "" .root.Values.priorityClass.create }}
{{- .name | default $usual }}
{{- end }}

{{- /* What agents and clients connect to. */ -}}
{{- define "holdfast.url" -}}
https://{{ include "holdfast.coordinator" . }}.{{ .Release.Namespace }}.svc:7270
{{- end }}

{{- define "holdfast.drain" -}}
{{ sub (int .Values.terminationGracePeriodSeconds) 5 }}s
{{- end }}

{{- define "holdfast.encryption.secret" -}}
{{- .Values.encryption.existingSecret | default (printf "%s-encryption" (include "holdfast.fullname" .)) }}
{{- end }}

{{- /* Certificate and key of the coordinator. */ -}}
{{- define "holdfast.tls.secret" -}}
{{- $own := printf "%s-tls" (include "holdfast.fullname" .) }}
{{- if eq .Values.tls.mode "existingSecret" }}
{{- required "tls.existingSecret must be set with tls.mode existingSecret" .Values.tls.existingSecret }}
{{- else }}{{ $own }}{{- end }}
{{- end }}

{{- /* What agents and clients trust, and who an agent is. */ -}}
{{- define "holdfast.tls.agentSecret" -}}
{{- $own := printf "%s-agent-tls" (include "holdfast.fullname" .) }}
{{- if eq .Values.tls.mode "existingSecret" }}
{{- .Values.tls.agentSecret | default .Values.tls.existingSecret }}
{{- else }}{{ $own }}{{- end }}
{{- end }}

{{- define "holdfast.tls.agentVolume" -}}
name: tls
secret:
  secretName: {{ include "holdfast.tls.agentSecret" . }}
  defaultMode: 0440
  items:
    - {key: ca.crt, path: ca.crt}
    {{- if .Values.tls.requireClientCertificate }}
    - {key: tls.crt, path: tls.crt}
    - {key: tls.key, path: tls.key}
    {{- end }}
{{- end }}

{{- /* The DNS names of the coordinator, as a JSON list. */ -}}
{{- define "holdfast.tls.names" -}}
{{- $name := include "holdfast.coordinator" . }}
{{- $space := printf "%s.%s" $name .Release.Namespace }}
{{- $names := list (printf "%s.svc" $space) $space $name (printf "%s.svc.cluster.local" $space) "localhost" }}
{{- concat $names .Values.tls.extraNames | uniq | toJson }}
{{- end }}

{{- /* Whether the repository lies on a volume of the chart. */ -}}
{{- define "holdfast.repository.onVolume" -}}
{{- if and .Values.repository.persistence.enabled (hasPrefix "file:" .Values.repository.url) }}true{{- end }}
{{- end }}

{{- /* `init` takes endpoint and region from the URL alone. */ -}}
{{- define "holdfast.repository.initUrl" -}}
{{- $options := list }}
{{- with .Values.repository.endpoint }}{{ $options = append $options (printf "endpoint=%s" (urlquery .)) }}{{- end }}
{{- with .Values.repository.region }}{{ $options = append $options (printf "region=%s" (urlquery .)) }}{{- end }}
{{- if kindIs "bool" .Values.repository.pathStyle }}
{{- $options = append $options (printf "path_style=%t" .Values.repository.pathStyle) }}
{{- end }}
{{- $mark := ternary "&" "?" (contains "?" .Values.repository.url) }}
{{- .Values.repository.url }}{{ if $options }}{{ $mark }}{{ join "&" $options }}{{ end }}
{{- end }}

{{- /* Whether a monitor is rendered; call with root and monitor. */ -}}
{{- define "holdfast.monitored" -}}
{{- $known := .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if and .root.Values.metrics.enabled .monitor.enabled (or $known .monitor.force) }}true{{- end }}
{{- end }}
