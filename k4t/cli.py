"""Every command, a few lines each."""


def main() -> None:
    raise SystemExit("not yet")
