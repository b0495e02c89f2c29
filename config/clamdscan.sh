#!/bin/sh
# Scans one file with a running ClamAV daemon (Debian: clamav-daemon, clamdscan).
#
#   clamdscan.sh [CLAMD_CONF] FILE
#
# CLAMD_CONF  the daemon's configuration, from which clamdscan reads where its socket is (LocalSocket).
#             Default /etc/clamav/clamd.conf; another one: script_args = ["/path/clamd.conf"].
#             The script's user must be able to read it, and to connect to the socket (LocalSocketMode 666, or its group).
# Exit code   0 clean, 1 infected, 2 could not scan.  Configure failure_exit_codes = [2, 126, 127]:
#             a stopped daemon is a failure, not an infection.
# Sandbox     sandbox.unix_sockets = ["/run/clamav/clamd.ctl"], sandbox.read_only_paths = ["/etc/clamav"]
# Prints      the signature's name, "clean", or a short line; details of a failure go to stderr.
#
# The daemon needs "AlertExceedsMax yes", and MaxFileSize and MaxScanSize not below the largest media:
# without it, it calls a file above its limits OK, unscanned.

LC_ALL=C
export LC_ALL

case $# in
1) conf=/etc/clamav/clamd.conf file=$1 ;;
2) conf=$1 file=$2 ;;
*) echo "usage: clamdscan.sh [CLAMD_CONF] FILE"; exit 2 ;;
esac

# clamdscan does not follow a symbolic link, yet says OK and 0 for it, and walks into a directory.
if [ -L "$file" ] || [ ! -f "$file" ] || [ ! -r "$file" ]; then
	echo "not a readable regular file"
	exit 2
fi

# --fdpass hands the open file to the daemon: the daemon's user needs no right on the file or its directory.
# (Without "exec": the exit code alone is not taken for clean, see below.)
out=$(clamdscan --fdpass --no-summary --config-file="$conf" -- "$file")
code=$?

# "PATH: OK" or "PATH: NAME FOUND"
said=${out##*: }
case $code:$said in
0:OK)
	echo "clean"
	exit 0
	;;
1:*" FOUND")
	echo "${said% FOUND}"
	exit 1
	;;
esac
# 2, killed by a signal, not installed, or a 0 that does not say OK (a kind of file that it skips)
echo "clamdscan could not scan (exit code $code)"
exit 2
