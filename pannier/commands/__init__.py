"""The `pannier` command. Needs the extra `cli`; the stack's commands need the extra `demo`."""
