"""The frontend's side, as kube-apiserver plays it: one tunnel per call."""
