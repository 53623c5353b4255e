"""`python -m validate --list | NAME ...`: named checks, each printing quantity, source, published and simulated figures."""

import argparse
import sys

from validate import bench, micro, paper, reading

CHECKS = {"micro": micro, "paper": paper, "bench": bench, "reading": reading}


def main() -> int:
    """Runs the named checks, or lists them."""
    parser = argparse.ArgumentParser(prog="python -m validate", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list the checks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHECKS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in CHECKS]
    if unknown:
        print(f"validate: unknown check {unknown[0]!r}; known are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    if arguments.list or not arguments.names:
        for name, module in CHECKS.items():
            print(f"{name:8} {module.__doc__.strip().splitlines()[0]}")
        return 0
    for name in arguments.names:
        CHECKS[name].run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
