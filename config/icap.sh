#!/bin/sh
# Scans one file with an ICAP server, using c-icap-client (part of Debian's c-icap). RFC 3507.
#
#   icap.sh HOST PORT SERVICE FILE
#
# HOST, PORT   address of the server:  script_args = ["127.0.0.1", "1344", "avscan"]
# SERVICE      name of its antivirus service.
# Exit code    0 clean, 1 infected, 2 scan failed.  Configure failure_exit_codes = [2, 126, 127], so that
#              a stopped server counts as a failure, not as an infection.
# Output       the signature name if the server reports it, "clean", or a short message; details go to stderr.
# Sandbox      sandbox.tcp_ports = [1344]
#
# The server's configuration selects what is scanned: Debian's virus_scan.conf passes pictures, and files
# larger than 5 MB, without scanning (ScanFileTypes, MaxObjectSize).

LC_ALL=C
export LC_ALL

if [ $# -ne 4 ]; then
	echo "usage: icap.sh HOST PORT SERVICE FILE"
	exit 2
fi
response=${TMPDIR:-/tmp}/icap.$$
trap 'rm -f "$response"' EXIT

# The exit code states only whether the server responded: it is 0 for an infected file, and for a server whose
# engine is unavailable. Therefore this script evaluates the response: 204 means "unchanged".
output=$(c-icap-client -i "$1" -p "$2" -s "$3" -f "$4" -o "$response" -v 2>&1)
code=$?
threat=$(printf '%s\n' "$output" | sed -n 's/.*X-Infection-Found:.*Threat=\([^;]*\);.*/\1/p' | head -n 1)
status=$(printf '%s\n' "$output" | sed -n 's|^[[:space:]]*ICAP/1\.[01] \([0-9]*\).*|\1|p' | head -n 1)

if [ -n "$threat" ]; then
	echo "$threat"
	exit 1
fi
case $code:$status in
0:204)
	echo "clean"
	exit 0
	;;
0:200)
	# The server returned the file, or a replacement.
	if cmp -s "$4" "$response"; then
		echo "clean"
		exit 0
	fi
	echo "replaced by the ICAP server"
	exit 1
	;;
esac
printf '%s\n' "$output" >&2
echo "the ICAP server could not scan (status ${status:-none})"
exit 2
