"""Run folders to tables, tables to a verdict. Reads files only, without torch."""
