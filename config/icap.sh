#!/bin/sh
# Scans one file with an ICAP server (Debian: c-icap, whose client this is: c-icap-client). RFC 3507.
#
#   icap.sh HOST PORT SERVICE FILE
#
# HOST, PORT   the server:  script_args = ["127.0.0.1", "1344", "avscan"]
# SERVICE      its antivirus service's name.
# Exit code    0 clean, 1 infected, 2 could not scan.  Configure failure_exit_codes = [2, 126, 127]:
#              a server that has stopped is a failure, not an infection.
# Prints       the signature's name where the server tells it, "clean", or a short line; details go to stderr.
# Sandbox      sandbox.tcp_ports = [1344]
#
# The server decides what it looks into: Debian's virus_scan.conf lets pictures and whatever is larger than 5 MB
# pass unscanned (ScanFileTypes, MaxObjectSize).

LC_ALL=C
export LC_ALL

if [ $# -ne 4 ]; then
	echo "usage: icap.sh HOST PORT SERVICE FILE"
	exit 2
fi
answer=${TMPDIR:-/tmp}/icap.$$
trap 'rm -f "$answer"' EXIT

# Its exit code says only whether there was an answer: it is 0 for an infected file, and for a server whose
# engine has gone. So the answer itself is read: 204 is "unchanged", anything else is not the file.
said=$(c-icap-client -i "$1" -p "$2" -s "$3" -f "$4" -o "$answer" -v 2>&1)
code=$?
threat=$(printf '%s\n' "$said" | sed -n 's/.*X-Infection-Found:.*Threat=\([^;]*\);.*/\1/p' | head -n 1)
status=$(printf '%s\n' "$said" | sed -n 's|^[[:space:]]*ICAP/1\.[01] \([0-9]*\).*|\1|p' | head -n 1)

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
	# Sent back in full, or something in its place.
	if cmp -s "$4" "$answer"; then
		echo "clean"
		exit 0
	fi
	echo "replaced by the ICAP server"
	exit 1
	;;
esac
printf '%s\n' "$said" >&2
echo "the ICAP server could not scan (status ${status:-none})"
exit 2
