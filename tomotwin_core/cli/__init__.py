"""The command `tomotwin`: one file per subcommand, each with `add_parser` (what it takes) and `run` (one call into
the engine, then what to print)."""
