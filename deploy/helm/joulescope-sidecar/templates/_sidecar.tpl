{{/*
joulescope in a pod. Each template takes the root context of a chart that has this one as a dependency with the
alias `joulescope`, so that .Values.joulescope is as values.yaml here has it, with what the user changed.

What they render is joulescope/inject/pod.py, word for word; a test holds them to it.
*/}}

{{/* Entries of initContainers: first of all. */}}
{{- define "joulescope.initContainers" -}}
{{- $values := .Values.joulescope -}}
- name: joulescope-hook
  image: {{ include "joulescope.image" . | quote }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  args: ["hook", "install", "/opt/joulescope/hook", "--lenient"]
  resources: {{- toYaml $values.resources | nindent 4 }}
  securityContext: {{- include "joulescope.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: joulescope-hook
      mountPath: /opt/joulescope/hook
    - name: joulescope-no-token
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
- name: joulescope
  image: {{ include "joulescope.image" . | quote }}
  {{- with $values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  restartPolicy: Always
  args: ["serve", "--stay"]
  env: {{- include "joulescope.env" . | nindent 4 }}
  ports:
    - name: joulescope
      containerPort: 5685
      protocol: TCP
  resources:
    {{- toYaml $values.resources | nindent 4 }}
    {{- if eq $values.gpuAccess "dra" }}
    claims:
      - name: {{ required "joulescope.claim: name the pod's resource claim that has vLLM's GPUs" $values.claim }}
    {{- end }}
  securityContext: {{- include "joulescope.securityContext" . | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - name: joulescope-run
      mountPath: /run/joulescope
    - name: joulescope-no-token
      mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      readOnly: true
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Entries of volumes. No limit of size: a pod that exceeds one is evicted. */}}
{{- define "joulescope.volumes" -}}
- name: joulescope-run
  emptyDir: {}
- name: joulescope-hook
  emptyDir: {}
- name: joulescope-no-token
  emptyDir: {}
{{- with .Values.joulescope.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Entries of env of vLLM's container. A PYTHONPATH or VLLM_PLUGINS of yours has to be joined by hand. */}}
{{- define "joulescope.engineEnv" -}}
- name: PYTHONPATH
  value: /opt/joulescope/hook
- name: JOULESCOPE_SOCKET
  value: /run/joulescope/joulescope.sock
{{- end }}

{{/* Entries of volumeMounts of vLLM's container. */}}
{{- define "joulescope.engineVolumeMounts" -}}
- name: joulescope-run
  mountPath: /run/joulescope
  readOnly: true
- name: joulescope-hook
  mountPath: /opt/joulescope/hook
  readOnly: true
{{- end }}

{{/* Entries of supplementalGroups of the pod's securityContext: vLLM's user may open the socket. */}}
{{- define "joulescope.supplementalGroups" -}}
- 10001
{{- end }}

{{/* Labels of the pod template, by which a PodMonitor finds it. */}}
{{- define "joulescope.podLabels" -}}
joulescope/scrape: "true"
{{- end }}

{{/* Annotations of the pod template. */}}
{{- define "joulescope.podAnnotations" -}}
joulescope/injected: {{ include "joulescope.version" . | quote }}
{{- end }}

{{- define "joulescope.version" -}}
0.1.0
{{- end }}

{{- define "joulescope.image" -}}
{{- with .Values.joulescope.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default (include "joulescope.version" $) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "joulescope.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: ["ALL"]
readOnlyRootFilesystem: true
runAsGroup: 10001
runAsNonRoot: true
runAsUser: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "joulescope.env" -}}
{{- $values := .Values.joulescope -}}
{{- $settings := dict "JOULESCOPE_SENSOR" (ternary "engine" "nvml" (eq $values.gpuAccess "engine")) -}}
{{- if eq $values.gpuAccess "runtimeclass" }}{{ $_ := set $settings "NVIDIA_VISIBLE_DEVICES" "all" }}{{ end -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_UID
  valueFrom:
    fieldRef:
      fieldPath: metadata.uid
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: CONTAINER_NAME
  value: joulescope
- name: JOULESCOPE_SOCKET
  value: /run/joulescope/joulescope.sock
- name: JOULESCOPE_LISTEN
  value: 0.0.0.0:5685
{{- range $name, $value := mergeOverwrite $settings $values.env }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
