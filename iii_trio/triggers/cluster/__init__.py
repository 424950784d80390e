"""Several engines as one mesh, coordinated by a store (docs/cluster.md)."""
