"""Upstream's flags: name, type and default as Go prints it, in the order of its options files.

Sources: cmd/server/app/options/options.go, cmd/agent/app/options/options.go, k8s.io/klog/v2.
"""

from __future__ import annotations

PROTOBUF = '"application/vnd.kubernetes.protobuf"'
LABEL = '"k8s-app=konnectivity-server"'

SERVER = (
    ("server-cert", "string", '""'),
    ("server-key", "string", '""'),
    ("server-ca-cert", "string", '""'),
    ("cluster-cert", "string", '""'),
    ("cluster-key", "string", '""'),
    ("cluster-ca-cert", "string", '""'),
    ("mode", "string", '"grpc"'),
    ("uds-name", "string", '""'),
    ("delete-existing-uds-file", "bool", "true"),
    ("server-port", "int", "8090"),
    ("server-bind-address", "string", '""'),
    ("agent-port", "int", "8091"),
    ("agent-bind-address", "string", '""'),
    ("admin-port", "int", "8095"),
    ("admin-bind-address", "string", '"127.0.0.1"'),
    ("health-port", "int", "8092"),
    ("health-bind-address", "string", '""'),
    ("keepalive-time", "duration", "1h0m0s"),
    ("frontend-keepalive-time", "duration", "1h0m0s"),
    ("enable-profiling", "bool", "false"),
    ("enable-contention-profiling", "bool", "false"),
    ("server-id", "string", "$PROXY_SERVER_ID"),
    ("server-count", "int", "1"),
    ("agent-namespace", "string", '""'),
    ("agent-service-account", "string", '""'),
    ("authentication-audience", "string", '""'),
    ("kubeconfig", "string", '""'),
    ("kubeconfig-qps", "float", "0"),
    ("kubeconfig-burst", "int", "0"),
    ("kube-api-content-type", "string", PROTOBUF),
    ("proxy-strategies", "string", '"default"'),
    ("cipher-suites", "strings", "[]"),
    ("tls-min-version", "string", '""'),
    ("xfr-channel-size", "int", "10"),
    ("enable-lease-controller", "bool", "false"),
    ("lease-namespace", "string", '"kube-system"'),
    ("lease-label", "string", LABEL),
    ("graceful-shutdown-timeout", "duration", "0s"),
    ("backend-dial-timeout", "duration", "0s"),
    ("warn-on-channel-limit", "bool", "true"),
)

AGENT = (
    ("agent-cert", "string", '""'),
    ("agent-key", "string", '""'),
    ("ca-cert", "string", '""'),
    ("proxy-server-host", "string", '"127.0.0.1"'),
    ("proxy-server-port", "int", "8091"),
    ("alpn-proto", "strings", "[]"),
    ("health-server-host", "string", '""'),
    ("health-server-port", "int", "8093"),
    ("admin-bind-address", "string", '"127.0.0.1"'),
    ("admin-server-port", "int", "8094"),
    ("enable-profiling", "bool", "false"),
    ("enable-contention-profiling", "bool", "false"),
    ("agent-id", "string", "$PROXY_AGENT_ID"),
    ("agent-identifiers", "string", '""'),
    ("sync-interval", "duration", "1s"),
    ("sync-interval-cap", "duration", "10s"),
    ("sync-forever", "bool", "false"),
    ("probe-interval", "duration", "1s"),
    ("keepalive-time", "duration", "1h0m0s"),
    ("service-account-token-path", "string", '""'),
    ("warn-on-channel-limit", "bool", "false"),
    ("xfr-channel-size", "int", "150"),
    ("count-server-leases", "bool", "false"),
    ("lease-namespace", "string", '"kube-system"'),
    ("lease-label-selector", "string", LABEL),
    ("lease-label", "string", LABEL),
    ("server-count-source", "string", '"default"'),
    ("kubeconfig", "string", '""'),
    ("kube-api-content-type", "string", PROTOBUF),
)

LOGGING = (
    ("v", "Level", "4"),
    ("vmodule", "pattern=N,...", ""),
    ("logtostderr", "bool", "true"),
    ("alsologtostderr", "bool", "false"),
    ("log-file", "string", '""'),
    ("log-file-max-size", "uint", "1800"),
    ("stderrthreshold", "severity", "2"),
    ("alsologtostderrthreshold", "severity", "0"),
    ("legacy-stderr-threshold-behavior", "bool", "true"),
    ("skip-headers", "bool", "false"),
    ("add-dir-header", "bool", "false"),
    ("log-dir", "string", '""'),
    ("one-output", "bool", "false"),
    ("skip-log-headers", "bool", "false"),
    ("log-backtrace-at", "string", '":0"'),
)

DEPRECATED = {"server": {"warn-on-channel-limit"}, "agent": {"lease-label"}}
"""Hidden from the help; a warning when they are used."""

DIFFERENT = {
    ("server", "keepalive-time", "1h0m0s", "10s"),
    ("server", "backend-dial-timeout", "0s", "0s"),  # no limit; 30 s
}
"""Deliberate differences: program, flag, upstream's default, ours."""
