"""Core's own providers: a plugin like any other."""
