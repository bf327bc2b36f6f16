"""`konnectivity demo`: real traffic from a control plane into a cluster it cannot reach."""
