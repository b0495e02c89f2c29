#!/bin/sh
# Matches one file against YARA rules (Debian: yara). Does not scan inside archives.
#
#   yara.sh RULES FILE
#
# RULES       file with rules:  script_args = ["/etc/yara/rules.yar"]
# Exit code   0 no rule matches, 1 a rule matches, 2 scan failed.  Configure failure_exit_codes = [2, 126, 127].
# Output      the names of the matching rules.
# Sandbox     sandbox.read_only_paths = ["/etc/yara"]

if [ $# -ne 2 ]; then
	echo "usage: yara.sh RULES FILE"
	exit 2
fi

# yara exits with 0 whether a rule matches or not.
found=$(yara --no-warnings "$1" "$2") || exit 2
[ -n "$found" ] || exit 0
# One line "RULE PATH" per match.
printf '%s\n' "$found" | cut -d ' ' -f 1
exit 1
