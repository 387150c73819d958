"""`python -m quadmix` is the command line."""

from quadmix.cli.main import main

if __name__ == "__main__":
    main()
