#!/bin/sh
# A demonstration, so that the service can be tried without an engine: it refuses the EICAR test
# file (any file that starts with EICAR's 68 bytes) and finds everything else clean. It protects
# nobody; put a real scanner in its place. See https://www.eicar.org/download-anti-malware-testfile/
#
# A scan script gets the file's path as its last argument. Exit code 0 means clean; 126 and 127 mean
# that it could not tell (failure_exit_codes); any other means not clean, and what was printed is
# the reason that clients are shown.

# In two parts, so that no scanner takes this script itself for the test file.
head='X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-'
tail='STANDARD-ANTIVIRUS-TEST-FILE!$H+H*'

printf '%s%s' "$head" "$tail" | cmp -s -n 68 -- - "$1"
case $? in
    0) echo 'Eicar-Test-Signature'; exit 1 ;;
    1) exit 0 ;;
    # cmp is missing, or could not read the file: that is not "clean".
    *) exit 126 ;;
esac
