{{/* Name of the operator's objects: `ehrmind-operator` for a release called ehrmind. */}}
{{- define "ehrmind.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains "ehrmind" .Release.Name -}}
{{- printf "%s-operator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-ehrmind-operator" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "ehrmind.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ehrmind.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the account to use, since serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* app.kubernetes.io/name is fixed: the NetworkPolicies of runs let exactly these pods read progress. */}}
{{- define "ehrmind.selectorLabels" -}}
app.kubernetes.io/name: ehrmind-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Without versions: a new chart alone restarts nothing. */}}
{{- define "ehrmind.podLabels" -}}
{{ include "ehrmind.selectorLabels" . }}
app.kubernetes.io/part-of: ehrmind
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "ehrmind.labels" -}}
{{ include "ehrmind.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Of what `helm test` makes, and removes when it has passed. Not the operator's name, or the test's pod would stand behind the operator's
Service and policy. Takes (dict "root" $ "weight" 0 "wide" false). */}}
{{- define "ehrmind.testMetadata" -}}
name: {{ include "ehrmind.name" .root }}-test
{{- if not .wide }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  app.kubernetes.io/name: ehrmind-test
  app.kubernetes.io/instance: {{ .root.Release.Name }}
  app.kubernetes.io/part-of: ehrmind
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
annotations:
  helm.sh/hook: test
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{- define "ehrmind.proxies" -}}
{{- range $name, $value := dict "HTTP_PROXY" .Values.proxy.http "HTTPS_PROXY" .Values.proxy.https "NO_PROXY" .Values.proxy.noProxy }}
{{- if $value }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* A full image reference. Takes (dict "root" $ "name" "trainer"). */}}
{{- define "ehrmind.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $path := $image.repository -}}
{{- with .root.Values.images.registry }}{{- $path = printf "%s/%s" (trimSuffix "/" .) $path -}}{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $path $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $path (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{/* `restricted` of the Pod Security Standards; an id that is null is left to the cluster. */}}
{{- define "ehrmind.podSecurityContext" -}}
runAsNonRoot: true
{{- range $key, $id := .Values.podSecurityContext }}
{{- if not (kindIs "invalid" $id) }}
{{ $key }}: {{ int $id }}
{{- end }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ehrmind.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
