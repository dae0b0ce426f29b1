{{- define "users.pod" -}}
{{- toYaml .Values.pod -}}
{{- end }}
