#!/bin/sh
# Matches one file against YARA rules (Debian: yara). It looks into no archives.
#
#   yara.sh RULES FILE
#
# RULES       a file of rules:  script_args = ["/etc/yara/rules.yar"]
# Exit code   0 no rule matches, 1 one does, 2 could not tell.  Configure failure_exit_codes = [2, 126, 127].
# Prints      the names of the rules that match.
# Sandbox     sandbox.read_only_paths = ["/etc/yara"]

if [ $# -ne 2 ]; then
	echo "usage: yara.sh RULES FILE"
	exit 2
fi

# Its exit code is 0 whether a rule matches or not.
found=$(yara --no-warnings "$1" "$2") || exit 2
[ -n "$found" ] || exit 0
# "RULE PATH" a line
printf '%s\n' "$found" | cut -d ' ' -f 1
exit 1
