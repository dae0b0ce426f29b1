{{/*
joulescope in a pod. Each template but the first takes the root context of a chart that has this one as a dependency with the
alias `joulescope`, so that .Values.joulescope is as values.yaml here has it, with what the user changed.

What they render with default values is what joulescope/inject/pod.py says; a test holds them to it.
*/}}

{{/*
A whole pod template, yours with joulescope in it. Takes a dict of `root`, the context; `template`, the name of the
named template that has yours, with metadata and spec; and `container`, the name of vLLM's, `vllm` if there is none.
*/}}
{{- define "joulescope.podTemplate" -}}
{{- $root := .root -}}
{{- $pod := include .template $root | fromYaml -}}
{{- with $pod.Error }}{{ fail (printf "joulescope.podTemplate: %s is no YAML: %s" $.template .) }}{{ end -}}
{{- $metadata := $pod.metadata | default dict -}}
{{- $spec := $pod.spec | default dict -}}
{{- $security := $spec.securityContext | default dict -}}
{{- range $key, $ours := dict "labels" "joulescope.podLabels" "annotations" "joulescope.podAnnotations" -}}
{{- $_ := set $metadata $key (merge (include $ours $root | fromYaml) (get $metadata $key | default dict)) -}}
{{- end -}}
{{- $starts := include "joulescope.initContainers" $root | fromYamlArray -}}
{{- /* On the node's network a declared port is one of the node's, and a second such pod would find no room there. */ -}}
{{- if $spec.hostNetwork }}{{ range $starts }}{{ $_ := unset . "ports" }}{{ end }}{{ end -}}
{{- $_ := set $spec "initContainers" (concat $starts ($spec.initContainers | default list)) -}}
{{- $volumes := include "joulescope.volumes" $root | fromYamlArray -}}
{{- $_ := set $spec "volumes" (concat ($spec.volumes | default list) $volumes) -}}
{{- $groups := include "joulescope.supplementalGroups" $root | fromYamlArray -}}
{{- $_ := set $security "supplementalGroups" (concat ($security.supplementalGroups | default list) $groups) -}}
{{- $_ := set $spec "securityContext" $security -}}
{{- $name := .container | default "vllm" -}}
{{- $names := list -}}
{{- range $container := $spec.containers -}}
{{- $names = append $names $container.name -}}
{{- if eq $container.name $name -}}
{{- include "joulescope.intoEngine" (dict "root" $root "container" $container) -}}
{{- end -}}
{{- end -}}
{{- if not (has $name $names) -}}
{{- fail (printf "joulescope.podTemplate: %s has no container %s; it has %s" .template $name (join ", " $names)) -}}
{{- end -}}
{{- $_ := set $pod "metadata" $metadata -}}
{{- $_ := set $pod "spec" $spec -}}
{{- toYaml $pod -}}
{{- end }}

{{/* Changes vLLM's container in place; a PYTHONPATH and VLLM_PLUGINS that it has are kept. Renders nothing. */}}
{{- define "joulescope.intoEngine" -}}
{{- $container := .container -}}
{{- $mounts := include "joulescope.engineVolumeMounts" .root | fromYamlArray -}}
{{- $_ := set $container "volumeMounts" (concat ($container.volumeMounts | default list) $mounts) -}}
{{- $variables := $container.env | default list -}}
{{- $there := list -}}
{{- range $variables -}}
{{- $there = append $there .name -}}
{{- if has .name (list "PYTHONPATH" "VLLM_PLUGINS") -}}
{{- if .valueFrom -}}
{{- fail (printf "joulescope.podTemplate: %s of container %s comes from elsewhere (valueFrom), so that nothing can be added to it: write its value there" .name $container.name) -}}
{{- end -}}
{{- $value := .value | default "" -}}
{{- if eq .name "PYTHONPATH" -}}
{{- $_ := set . "value" (list "/opt/joulescope/hook" $value | compact | join ":") -}}
{{- else if not (has "joulescope" (splitList "," $value)) -}}
{{- $_ := set . "value" (list $value "joulescope" | compact | join ",") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range include "joulescope.engineEnv" .root | fromYamlArray -}}
{{- if not (has .name $there) -}}{{- $variables = append $variables . -}}{{- end -}}
{{- end -}}
{{- $_ := set $container "env" $variables -}}
{{- end }}

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
    {{- if or $values.config $values.web.tlsSecret }}
    - name: joulescope-config
      mountPath: /etc/joulescope/config
      readOnly: true
    {{- end }}
    {{- if or $values.web.tlsSecret $values.web.configSecret }}
    - name: joulescope-web
      mountPath: /etc/joulescope/web
      readOnly: true
    {{- end }}
    {{- if $values.baselines.enabled }}
    - name: joulescope-baselines
      mountPath: /var/lib/joulescope/baselines
    {{- end }}
    {{- if $values.ledger.enabled }}
    - name: joulescope-ledger
      mountPath: /var/lib/joulescope/ledger
    {{- end }}
    {{- with $values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/*
Entries of volumes. No limit of size, since a pod that exceeds one is evicted, but of the ledger, which keeps well within
it: without one a node's disk would be its limit, for all pods there. What others make is optional: a secret that is
missing would keep the pod from starting, while `serve --stay` says what it lacks and waits for it.
*/}}
{{- define "joulescope.volumes" -}}
{{- $values := .Values.joulescope -}}
- name: joulescope-run
  emptyDir: {}
- name: joulescope-hook
  emptyDir: {}
- name: joulescope-no-token
  emptyDir: {}
{{- if or $values.config $values.web.tlsSecret }}
- name: joulescope-config
  configMap:
    name: {{ include "joulescope.configName" . }}
    optional: true
{{- end }}
{{- with $values.web.configSecret | default $values.web.tlsSecret }}
- name: joulescope-web
  secret:
    secretName: {{ . }}
    optional: true
{{- end }}
{{- if $values.baselines.enabled }}
- name: joulescope-baselines
  {{- with $values.baselines.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ . }}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- if $values.ledger.enabled }}
- name: joulescope-ledger
  {{- with $values.ledger.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ . }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $values.ledger.size }}
  {{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* A whole ConfigMap, or nothing: needed with `config` or `web.tlsSecret`. */}}
{{- define "joulescope.configMap" -}}
{{- if or .Values.joulescope.config .Values.joulescope.web.tlsSecret -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "joulescope.configName" . }}
  namespace: {{ .Release.Namespace }}
data:
  {{- include "joulescope.files" . | trim | nindent 2 }}
{{- end }}
{{- end }}

{{- define "joulescope.configName" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-joulescope
{{- end }}

{{/* Files of that ConfigMap. */}}
{{- define "joulescope.files" -}}
{{- with .Values.joulescope.config }}
joulescope.yaml: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.joulescope.web }}
{{- if .tlsSecret }}
web.yml: |
  tls_server_config:
    cert_file: /etc/joulescope/web/tls.crt
    key_file: /etc/joulescope/web/tls.key
    {{- if .clientAuth }}
    client_auth_type: RequireAndVerifyClientCert
    client_ca_file: /etc/joulescope/web/ca.crt
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Entries of env of vLLM's container: a PYTHONPATH or VLLM_PLUGINS of yours belongs into the values `engine`. */}}
{{- define "joulescope.engineEnv" -}}
{{- $engine := .Values.joulescope.engine -}}
- name: PYTHONPATH
  value: {{ list "/opt/joulescope/hook" $engine.pythonPath | compact | join ":" | quote }}
- name: JOULESCOPE_SOCKET
  value: /run/joulescope/joulescope.sock
{{- with $engine.plugins }}
- name: VLLM_PLUGINS
  value: {{ printf "%s,joulescope" . | quote }}
{{- end }}
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

{{/* Annotations of the pod template. With another configuration the pods are made anew. */}}
{{- define "joulescope.podAnnotations" -}}
joulescope/injected: {{ include "joulescope.version" . | quote }}
{{- with include "joulescope.files" . | trim }}
joulescope/config: {{ sha256sum . | trunc 16 | quote }}
{{- end }}
{{- end }}

{{/* A value as a string. Numbers are floats to Helm, and would be written as 1e+06. */}}
{{- define "joulescope.text" -}}
{{- if kindIs "string" . }}{{ quote . }}{{ else }}{{ toJson . | quote }}{{ end -}}
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
- name: JOULESCOPE_SENSOR
  value: {{ $values.env.JOULESCOPE_SENSOR | default (ternary "engine" "nvml" (eq $values.gpuAccess "engine")) }}
{{- if eq $values.gpuAccess "runtimeclass" }}
- name: NVIDIA_VISIBLE_DEVICES
  value: {{ $values.env.NVIDIA_VISIBLE_DEVICES | default "all" | toString | quote }}
{{- end }}
{{- if $values.config }}
- name: JOULESCOPE_CONFIG
  value: /etc/joulescope/config/joulescope.yaml
{{- end }}
{{- if $values.web.configSecret }}
- name: JOULESCOPE_WEB_CONFIG_FILE
  value: /etc/joulescope/web/web.yml
{{- else if $values.web.tlsSecret }}
- name: JOULESCOPE_WEB_CONFIG_FILE
  value: /etc/joulescope/config/web.yml
{{- end }}
{{- if $values.baselines.enabled }}
- name: JOULESCOPE_BASELINE_DIR
  value: /var/lib/joulescope/baselines
{{- end }}
{{- with $values.ledger }}
{{- if .enabled }}
- name: JOULESCOPE_LEDGER
  value: {{ .url | default "/var/lib/joulescope/ledger" | quote }}
{{- if .url }}
- name: JOULESCOPE_LEDGER_SPOOL
  value: /var/lib/joulescope/ledger
{{- if and (not .existingClaim) (not (hasKey $values.env "JOULESCOPE_LEDGER_ROTATE_SECONDS")) (not (hasKey $values.config "ledger_rotate_seconds")) }}
- name: JOULESCOPE_LEDGER_ROTATE_SECONDS
  value: "300"
{{- end }}
{{- end }}
{{- if not (or (hasKey $values.env "JOULESCOPE_LEDGER_MAX_MEBIBYTES") (hasKey $values.config "ledger_max_mebibytes")) }}
- name: JOULESCOPE_LEDGER_MAX_MEBIBYTES
  value: {{ div (mul 3 (trimSuffix "Gi" (trimSuffix "Mi" .size) | int64) (ternary 1024 1 (hasSuffix "Gi" .size))) 4 | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with $values.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with $values.otlp.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: headers
      optional: true
{{- end }}
{{- $told := list "JOULESCOPE_SENSOR" (ternary "NVIDIA_VISIBLE_DEVICES" "" (eq $values.gpuAccess "runtimeclass")) }}
{{- range $name, $value := $values.env }}
{{- if not (has $name $told) }}
- name: {{ $name }}
  value: {{ include "joulescope.text" $value }}
{{- end }}
{{- end }}
{{- with $values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
