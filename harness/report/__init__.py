"""Tables and verdicts to pictures and one page. Reads files only, without torch."""
