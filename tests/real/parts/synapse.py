"""Media of real homeservers, uploaded by a real client library: every route byte for byte, whose token
counts, and what homeservers refuse."""

from harness import homeserver
from harness.run import same, test
from harness.samples import EICAR, picture
from harness.scanner import Scanner

NEEDS = []


def scanner(machine):
    """In front of the homeserver with authenticated media; it asks about each request anew."""
    return Scanner(
        machine, machine.once(homeserver.authenticated), {"download.authorisation_ttl": "0s"}
    )


@test
def a_clean_and_an_infected_file_go_through(machine):
    service, alice = machine.once(scanner), machine.once(homeserver.authenticated).user()
    clean = alice.upload(picture("PNG"), "image/png", "cat.png")
    got = service.get(f"/download/{clean.path}", alice.token)
    same((got.status, got.header("content-type"), got.body), (200, "image/png", clean.content), got)
    infected = alice.upload(EICAR, "text/plain", "eicar.txt")
    got = service.get(f"/download/{infected.path}", alice.token)
    expected = {"reason": "MCS_MEDIA_NOT_CLEAN", "info": "File not clean. Output: 'Eicar-Test-Signature'"}
    same((got.status, got.json()), (403, expected))
