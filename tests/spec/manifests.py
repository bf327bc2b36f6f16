"""Argument lists of upstream's manifests and of others, in which only the image is changed.

`{file}` stands for a file that the pod mounts. Sources: upstream's examples/kind,
examples/kind-multinode, examples/kubernetes, and its tests' way to start a foreign agent.
"""

from __future__ import annotations

KIND_SERVER = """
--log-file=/var/log/konnectivity-server.log
--logtostderr=true
--log-file-max-size=0
--uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket
--delete-existing-uds-file
--cluster-cert={file}
--cluster-key={file}
--server-port=0
--agent-port=8091
--health-port=8092
--admin-port=8093
--keepalive-time=1h
--mode=grpc
--agent-namespace=kube-system
--agent-service-account=konnectivity-agent
--kubeconfig={file}
--authentication-audience=system:konnectivity-server
"""
KIND_AGENT = """
--logtostderr=true
--ca-cert={file}
--proxy-server-host=konnectivity-server.kube-system.svc.cluster.local
--proxy-server-port=8091
--sync-interval=5s
--sync-interval-cap=30s
--probe-interval=5s
--service-account-token-path={file}
--agent-identifiers=ipv4=172.18.0.3
"""
KUBERNETES_SERVER = """
--logtostderr=false
--uds-name=/etc/srv/kubernetes/konnectivity-server/konnectivity-server.socket
--cluster-cert={file}
--cluster-key={file}
--server-port=0
--agent-port=8091
--health-port=8092
--admin-port=8093
--mode=http-connect
--agent-namespace=kube-system
--agent-service-account=konnectivity-agent
--kubeconfig={file}
--authentication-audience=system:konnectivity-server
"""
KUBERNETES_AGENT = """
--logtostderr=true
--ca-cert={file}
--proxy-server-host=203.0.113.7
--proxy-server-port=8091
--service-account-token-path={file}
"""
TEST_AGENT = """
--agent-cert={file} --agent-key={file} --ca-cert={file}
--proxy-server-host=127.0.0.1 --proxy-server-port=8091 --alpn-proto=[]
--health-server-host= --health-server-port=8093
--admin-bind-address=127.0.0.1 --admin-server-port=8094
--enable-profiling=false --enable-contention-profiling=false
--agent-id=a --agent-identifiers=
--sync-interval=100ms --sync-interval-cap=1s --sync-forever=false --probe-interval=100ms
--keepalive-time=1h0m0s --service-account-token-path=
--warn-on-channel-limit=false --xfr-channel-size=150
--count-server-leases=false --lease-namespace=kube-system
--lease-label=k8s-app=konnectivity-server --lease-label-selector=k8s-app=konnectivity-server
--server-count-source=default --kubeconfig= --v=4
--kube-api-content-type=application/vnd.kubernetes.protobuf
"""
MUTUAL_TLS = """
--server-ca-cert={file} --server-cert={file} --server-key={file}
--cluster-ca-cert={file} --cluster-cert={file} --cluster-key={file}
"""

SERVERS = {
    "kind": KIND_SERVER,
    "kind-multinode": KIND_SERVER + "--enable-lease-controller",
    "kubernetes": KUBERNETES_SERVER,
    "end-to-end test": KIND_SERVER + "--admin-bind-address= --server-count=3",
    "mutual TLS": MUTUAL_TLS,
    "patient": KIND_SERVER + "--graceful-shutdown-timeout=60s --keepalive-time=30s -v=8",
    "beside node names": KIND_SERVER + "--proxy-strategies=destHost,defaultRoute,default",
}
AGENTS = {
    "kind": KIND_AGENT,
    "kind-multinode": KIND_AGENT.replace("172.18.0.3", "${HOST_IP}")
    + "--sync-forever --count-server-leases",
    "kubernetes": KUBERNETES_AGENT,
    "integration test": TEST_AGENT,
    "end-to-end test": KIND_AGENT + "--admin-bind-address= --sync-forever",
    "default route": KIND_AGENT
    + "--agent-identifiers=default-route=true --keepalive-time=30s -v 3",
    "node address": KIND_AGENT + "--agent-id=172.18.0.3 --agent-identifiers=host=172.18.0.3",
}
