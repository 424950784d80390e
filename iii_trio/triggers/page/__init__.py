"""The engine's page for browsers: what runs at the moment, live."""
