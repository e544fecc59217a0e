"""The `pannier` command. Needs the extra `cli`; the stack's commands need the extra `demo`."""

from pannier.polling import poll_without_event_engine

poll_without_event_engine()
