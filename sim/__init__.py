"""The simulator: configuration, engine, store, policies, metrics, reports and the command line."""
