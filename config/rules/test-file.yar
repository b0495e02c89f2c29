/*
  The standard file for testing scanners.
  https://www.eicar.org/download-anti-malware-testfile/
*/

import "hash"

rule EICAR_Test_File
{
    meta:
        kind = "malware"
        reason = "The EICAR test file, a harmless file that every scanner detects"
    condition:
        // Uses the hash, so that scanners do not detect this rule file. Allows trailing data, as other scanners do.
        uint32be(0) == 0x58354F21 and hash.sha256(0, 68) == "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
}
