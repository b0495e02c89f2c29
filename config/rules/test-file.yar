/*
  The file by which people try whether a scanner works.
  https://www.eicar.org/download-anti-malware-testfile/
*/

import "hash"

rule EICAR_Test_File
{
    meta:
        reason = "The EICAR test file: every scanner refuses it, and it does no harm"
    condition:
        // By its hash, so that no scanner takes this file for it. Anything may follow, as in the files of other scanners' tests.
        uint32be(0) == 0x58354F21 and hash.sha256(0, 68) == "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
}
