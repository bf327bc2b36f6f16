"""The server: runs beside kube-apiserver, accepts frontends and agents."""
