"""The paper's results figure by figure beside ours, and what would reconcile those that miss: `kvplan validate paper --help`."""

from functools import partial

from kvplan.validate.published import command

main = partial(command.main, "paper")
