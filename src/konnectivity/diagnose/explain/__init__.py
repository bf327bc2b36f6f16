"""How kube-apiserver reaches one webhook, API service, pod or node, and where that ends."""
