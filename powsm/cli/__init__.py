"""The `powsm` command: one table, verb -> function, loaded late."""
