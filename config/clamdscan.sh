#!/bin/sh
# Scans one file with a running ClamAV daemon (Debian: clamav-daemon, clamdscan).
#
#   clamdscan.sh [CLAMD_CONF] FILE
#
# CLAMD_CONF  the daemon's configuration, from which clamdscan reads the path of the socket (LocalSocket).
#             Default: /etc/clamav/clamd.conf. To change it, set script_args = ["/path/clamd.conf"].
#             The script's user must be able to read it, and to connect to the socket (LocalSocketMode 666, or the group).
# Exit code   0 clean, 1 infected, 2 scan failed.  Configure failure_exit_codes = [2, 126, 127], so that
#             a stopped daemon counts as a failure, not as an infection.
# Sandbox     sandbox.unix_sockets = ["/run/clamav/clamd.ctl"], sandbox.read_only_paths = ["/etc/clamav"]
# Output      the signature name, "clean", or a short message; details of a failure go to stderr.
#
# The daemon needs "AlertExceedsMax yes", and MaxFileSize and MaxScanSize not below the largest media.
# Otherwise it reports a file above its limits OK without scanning it.

LC_ALL=C
export LC_ALL

case $# in
1) conf=/etc/clamav/clamd.conf file=$1 ;;
2) conf=$1 file=$2 ;;
*) echo "usage: clamdscan.sh [CLAMD_CONF] FILE"; exit 2 ;;
esac

# clamdscan does not follow symbolic links, but reports OK and exits with 0; it descends into directories.
if [ -L "$file" ] || [ ! -f "$file" ] || [ ! -r "$file" ]; then
	echo "not a readable regular file"
	exit 2
fi

# --fdpass passes the open file to the daemon, so that the daemon's user needs no access to the file.
# No "exec", since exit code 0 alone does not mean clean, see below.
output=$(clamdscan --fdpass --no-summary --config-file="$conf" -- "$file")
code=$?

# "PATH: OK" or "PATH: NAME FOUND"
result=${output##*: }
case $code:$result in
0:OK)
	echo "clean"
	exit 0
	;;
1:*" FOUND")
	echo "${result% FOUND}"
	exit 1
	;;
esac
# Exit code 2, killed by a signal, not installed, or 0 without OK (skipped kinds of files).
echo "clamdscan could not scan (exit code $code)"
exit 2
