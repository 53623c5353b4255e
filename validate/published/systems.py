"""Published measurements of other systems beside ours: `kvplan validate published --help`."""

from functools import partial

from kvplan.validate.published import command

main = partial(command.main, "published")
