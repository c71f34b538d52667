"""Tables and verdicts to pictures (`charts`) and one page (`page`). Reads files only, without torch."""
