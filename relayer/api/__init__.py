"""The relayer's HTTP face: parse, answer, and accept what callers and operators ask for."""
