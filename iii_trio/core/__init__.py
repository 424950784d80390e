"""The pure core. Inputs go in and effects come out, without I/O."""
