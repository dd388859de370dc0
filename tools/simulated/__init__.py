"""A simulated cluster: real processes, a real proxy and the rendered manifests, without a kubelet or a scheduler."""
