"""Published results simulated: cases as YAML, one runner, one table, one page."""
