"""What a sweep found, as a person reads it: one page, tables, and a command a row."""
