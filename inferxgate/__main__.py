"""``python -m inferxgate``: the same program as the installed command."""

from inferxgate.cli.main import main

if __name__ == "__main__":
    main()
