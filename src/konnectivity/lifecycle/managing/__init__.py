"""The program `konnectivity manager`: one cluster or many."""
