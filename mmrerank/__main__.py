"""``python -m mmrerank`` is the command ``mmrerank``."""

from mmrerank.cli.main import main

if __name__ == "__main__":
    main()
