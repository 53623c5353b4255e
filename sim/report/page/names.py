"""Names of the files that a folder of kvplan has, and that reports are made of or are."""

RUN, PLAN, COMPARISON, CURVE = "summary.json", "plan.json", "compare.json", "curve.json"
CONFIG, TIERS = "config.resolved.yaml", "tiers.parquet"
HTML, MARKDOWN = "report.html", "report.md"
