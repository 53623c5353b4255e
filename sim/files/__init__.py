"""Files: what may be written where (`ours`), writing whole or not at all (`atomic`), and what the operating system says (`told`).

Needs the standard library only: a machine that measures GPUs has little else.
"""
