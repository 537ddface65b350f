"""`python -m ehrmind_k8s`: the same as the installed command `ehrmind`."""

from ehrmind_k8s.cli import main

if __name__ == "__main__":
    main()
