"""The report of any command: one page, `report.html` and `report.md`, made from what is in its folder and from nothing else.

A folder's JSON becomes a `Page` (`of_run`, `of_compare`, `of_curve`, `of_plan`): sections of text, tables and figures, in which a number
knows the place in the JSON that it comes from. `render` makes text of it, by one template; figures are SVG of our own (`charts`, `svg`).
"""
