{{/* Parts of the pods of Ray, which endpoint and tunings share. */}}

{{- define "ship.labels" -}}
app.kubernetes.io/part-of: ship
{{- end -}}

{{- define "ship.autoscaler" -}}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ . }}
  resources:
    requests: {cpu: 200m, memory: 512Mi}
    limits: {memory: 512Mi}
{{- end -}}

{{- define "ship.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ship.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: ship}
  - secretRef: {name: {{ .Values.credentialsSecret }}, optional: true}
{{- end -}}

{{- define "ship.resources" -}}
resources:
  requests:
    {{- toYaml .requests | nindent 4 }}
    {{- if .gpus }}
    nvidia.com/gpu: {{ .gpus | quote }}
    {{- end }}
  limits:
    memory: {{ .requests.memory }}
    {{- if .gpus }}
    nvidia.com/gpu: {{ .gpus | quote }}
    {{- end }}
{{- end -}}

{{/* KubeRay's own probes run wget, which the image has not. These paths need no token. */}}
{{- define "ship.headProbes" -}}
readinessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 10
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
{{- end -}}

{{- define "ship.workerLiveness" -}}
livenessProbe:
  httpGet: {path: /api/local_raylet_healthz, port: 52365}
  initialDelaySeconds: 30
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 120
{{- end -}}

{{- define "ship.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: home, mountPath: /home/ship}
{{- end -}}

{{- define "ship.volumes" -}}
- {name: tmp, emptyDir: {}}
- {name: home, emptyDir: {}}
{{- end -}}

{{- define "ship.tolerations" -}}
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
{{- end -}}
