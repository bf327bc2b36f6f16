"""The middle ring: Konnectivity's rules for dials and tunnels. No IO, no clock."""
