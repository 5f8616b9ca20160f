# The documentation is true: its code compiles and runs, its table of contents is the file's.
. "$(dirname "$0")/common.sh"
if have python3; then python3 docs.py "$build"; else skip python3 "not installed"; fi
