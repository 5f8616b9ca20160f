# Figures for people about tt.h.
. "$(dirname "$0")/common.sh"
if have python3; then python3 report.py "$build"; else skip python3 "not installed"; fi
