"""The command ``joulescope``: one file a command; commands parse, call and print."""
