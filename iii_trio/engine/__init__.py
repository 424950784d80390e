"""The tasks of an engine: the effects of the core become actions."""
