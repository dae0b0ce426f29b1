{{- define "chart.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "chart.labels" -}}
app.kubernetes.io/name: joulescope
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "chart.vllmSelector" -}}
app.kubernetes.io/name: vllm
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* How the sidecar's pages are served. */}}
{{- define "chart.scheme" -}}
{{- with .Values.joulescope.web -}}
{{- ternary "https" "http" (ne (.tlsSecret | default .configSecret) "") -}}
{{- end -}}
{{- end }}
