"""The observability module, which records traces, logs and metrics, and offers functions and trigger types to read them."""
