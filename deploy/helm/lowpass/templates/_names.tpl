{{- define "lowpass.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Which pods belong to the release, whatever they do. */ -}}
{{- define "lowpass.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lowpass.labels" -}}
{{ include "lowpass.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: lowpass
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Given {root, shard}: the name of that shard's things, and what selects its servers. */ -}}
{{- define "lowpass.shardName" -}}
{{- include "lowpass.fullname" .root }}{{ if gt (int .root.Values.userShards) 1 }}-shard-{{ .shard }}{{ end }}
{{- end -}}

{{- define "lowpass.serverSelector" -}}
{{ include "lowpass.selector" .root }}
app.kubernetes.io/component: server
lowpass/shard: {{ .shard | quote }}
{{- end -}}

{{- define "lowpass.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lowpass.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* Given {root, image}. */ -}}
{{- define "lowpass.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- define "lowpass.claim" -}}
{{- with .Values.repository.persistence -}}
{{- if .existingClaim -}}{{ .existingClaim }}{{- else if .create -}}{{ include "lowpass.fullname" $ }}-models{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lowpass.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "lowpass.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "lowpass.s3Env" -}}
{{- with .Values.repository.s3 }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- end }}
{{- if .credentialsSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .credentialsSecret }}, key: AWS_ACCESS_KEY_ID}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .credentialsSecret }}, key: AWS_SECRET_ACCESS_KEY}}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Given {root, shard}: serve.toml. Strings, numbers and lists of strings are the same in JSON and in TOML. */ -}}
{{- define "lowpass.serveToml" -}}
{{- $v := .root.Values -}}
{{- $below := gt (int $v.userShards) 1 | ternary (printf "/shard-%d-of-%d" .shard (int $v.userShards)) "" -}}
{{- $set := dict
  "address" (printf "0.0.0.0:%d" (int $v.service.grpcPort))
  "metrics_address" "0.0.0.0:9464"
  "health_address" "0.0.0.0:50053"
  "drain_wait" (float64 $v.serve.drainWait)
  "grace" (float64 $v.serve.grace) -}}
{{- if $v.repository.s3.url -}}
{{- $_ := set $set "repository" (printf "%s%s" (trimSuffix "/" $v.repository.s3.url) $below) -}}
{{- $_ := set $set "mirror" "/mirror" -}}
{{- else if not $v.repository.fake -}}
{{- $_ := set $set "repository" (printf "/models%s" $below) -}}
{{- end -}}
{{- if not (or $v.repository.fake (hasKey $v.serve.options "watch")) -}}{{- $_ := set $set "watch" 5.0 -}}{{- end -}}
{{- if $v.apiKeys.secret -}}{{- $_ := set $set "api_keys" "/etc/lowpass/keys/keys.txt" -}}{{- end -}}
{{- if $v.tls.secret -}}
{{- $_ := set $set "tls_cert" "/etc/lowpass/tls/tls.crt" -}}
{{- $_ := set $set "tls_key" "/etc/lowpass/tls/tls.key" -}}
{{- if $v.tls.clientCa -}}{{- $_ := set $set "tls_client_ca" "/etc/lowpass/tls/ca.crt" -}}{{- end -}}
{{- end -}}
{{- range $name, $value := merge $set $v.serve.options }}
{{ $name }} = {{ $value | toJson }}
{{- end }}
{{- end -}}
