"""ClamAV between a real homeserver and a client: by the shipped scripts, while all goes well, when its
daemon goes away in the middle of a scan and comes back, and beyond its limits."""

import concurrent.futures
import pathlib

from harness import homeserver
from harness.clamav import FAILURES, LIMIT, Clamd, Icap, signatures
from harness.machine import until
from harness.run import same, test
from harness.samples import EICAR, noise, picture, zipped
from harness.scanner import Scanner
from parts.synapse import alice, is_refused, is_verdict

NEEDS = ["clamd", "clamdscan", "clamscan", "c-icap", "c-icap-client"]

CLAMSCAN = 'exec clamscan --database={} --no-summary --infected "$1"'


def samples(machine):
    """Name, whether it is clean, and the media: as it is and encrypted."""
    user = machine.once(alice)
    zip_ = zipped(EICAR, "eicar.txt")
    files = [
        ("picture", True, picture("PNG", seed=40)),
        ("text", True, b"nothing in here\n"),
        ("zip", True, zipped(noise(40, 3000), "noise")),
        ("nothing", True, b""),
        ("EICAR", False, EICAR),
        ("EICAR, zipped", False, zip_),
        ("EICAR, zipped twice", False, zipped(zip_, "eicar.zip")),
    ]
    return [(name, clean, user.upload(content), user.upload(content, encrypt=True)) for name, clean, content in files]


def judges_rightly(machine, service):
    """All samples by all routes, each with its right answer."""
    token = machine.once(alice).token
    for name, clean, plain, sealed in machine.once(samples):
        body = {"file": sealed.file}
        is_verdict(service.get(f"/scan/{plain.path}", token), clean, name)
        is_verdict(service.post("/scan_encrypted", body, token), clean, name)
        for got, content in (
            (service.get(f"/download/{plain.path}", token), plain.content),
            (service.post("/download_encrypted", body, token), None),
        ):
            if clean:
                same(got.status, 200, f"{name}: {got}")
                assert content in (None, got.body), name
            else:
                is_refused(got, 403, "MCS_MEDIA_NOT_CLEAN", name)
                assert "EICAR" in got.json()["info"], got
    service.idle()


def is_failure(got, about=""):
    """A scan that was not finished: no verdict, and nothing of why."""
    is_refused(got, 500, "M_UNKNOWN", about)
    assert "clean" not in got.json()["info"], got


def front(machine):
    return machine.once(homeserver.authenticated)


@test
def clamdscan_as_shipped_judges_rightly(machine):
    for unprivileged in (False, True):
        service = machine.once(Clamd).scanner(front(machine), unprivileged=unprivileged)
        judges_rightly(machine, service)
        service.stop()


@test
def clamscan_judges_rightly(machine):
    database = machine.once(signatures)
    config = {"sandbox.read_only_paths": [str(database)], "scan.failure_exit_codes": FAILURES}
    service = Scanner(machine, front(machine), config, CLAMSCAN.format(database))
    judges_rightly(machine, service)
    service.stop()


@test
def an_icap_server_as_shipped_judges_rightly(machine):
    for unprivileged in (False, True):
        icap = Icap(machine, machine.once(Clamd))
        service = icap.scanner(front(machine), unprivileged=unprivileged)
        judges_rightly(machine, service)
        service.stop()
        machine.stop(icap.process)


def goes_away_and_comes_back(machine, clamd, service, asks):
    """`asks` is the program that is waiting for the daemon when that is killed."""
    user = machine.once(alice)
    token = user.token
    seen, seen_bad = user.upload(noise(50, 5000)), user.upload(EICAR)
    clean, other = user.upload(noise(51, 5000)), user.upload(noise(52, 5000), encrypt=True)
    zip_ = user.upload(zipped(EICAR, "eicar.txt"))
    body = {"file": other.file}

    same(service.get(f"/download/{seen.path}", token).status, 200)
    same(service.get(f"/download/{seen_bad.path}", token).status, 403)
    clamd.pause()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(service.get, f"/download/{clean.path}", token),
            pool.submit(service.get, f"/scan/{zip_.path}", token),
        ]
        until("both are asked about", lambda: len(running(service, asks)) == 2, service.process)
        clamd.kill()
        for answer in waiting:
            is_failure(answer.result(), "killed in the middle")
    is_failure(service.post("/scan_encrypted", body, token), "while it is away")
    # What was known stays known.
    same(service.get(f"/download/{seen.path}", token).status, 200)
    is_refused(service.get(f"/download/{seen_bad.path}", token), 403, "MCS_MEDIA_NOT_CLEAN")

    clamd.start()

    def back(ask):
        """The first answer that is not the failure, which is remembered for a second."""
        return until("it is back", lambda: (got := ask()).status != 500 and got, service.process, 30)

    got = back(lambda: service.get(f"/download/{clean.path}", token))
    same((got.status, got.body == clean.content), (200, True), got)
    is_verdict(back(lambda: service.get(f"/scan/{zip_.path}", token)), False)
    is_verdict(back(lambda: service.post("/scan_encrypted", body, token)), True)
    service.idle()


def running(service, name):
    """The processes of this name that the service's helpers have started, at any depth."""
    found, look = [], [str(service.process.pid)]
    while look:
        for task in pathlib.Path("/proc", look.pop()).glob("task/*/children"):
            try:
                children = task.read_text().split()
                named = [pid for pid in children if pathlib.Path("/proc", pid, "comm").read_text().strip() == name]
            except OSError:
                continue
            look += children
            found += named
    return found


@test
def a_daemon_that_goes_away_in_the_middle_is_a_failure_and_not_remembered(machine):
    clamd = Clamd(machine)
    service = clamd.scanner(front(machine), {"result_cache.failure_ttl": "1s"})
    goes_away_and_comes_back(machine, clamd, service, "clamdscan")
    service.stop()
    clamd.stop()


@test
def an_icap_server_whose_daemon_goes_away_in_the_middle_is_a_failure_too(machine):
    clamd = Clamd(machine)
    icap = Icap(machine, clamd)
    service = icap.scanner(front(machine), {"result_cache.failure_ttl": "1s"})
    goes_away_and_comes_back(machine, clamd, service, "c-icap-client")
    # And the ICAP server itself.
    user = machine.once(alice)
    machine.stop(icap.process)
    is_failure(service.get(f"/scan/{user.upload(noise(60, 500)).path}", user.token), "no ICAP server")
    service.stop()
    clamd.stop()


@test
def while_the_daemon_is_away_the_canary_takes_the_service_out(machine):
    clamd, user = Clamd(machine), machine.once(alice)
    service = clamd.scanner(front(machine), {"scan.canary_interval": "1s", "result_cache.failure_ttl": "1s"})
    seen, fresh = user.upload(picture("PNG", seed=70)), user.upload(picture("PNG", seed=71))
    same(service.get(f"/download/{seen.path}", user.token).status, 200)
    clamd.stop()

    def status():
        return service.get(f"/download/{fresh.path}", user.token).status

    until("it is not ready", lambda: status() == 503, service.process)
    got = service.get(f"/download/{fresh.path}", user.token)
    is_refused(got, 503, "M_UNKNOWN")
    assert int(got.header("retry-after")) > 0, got
    same(service.get(f"/download/{seen.path}", user.token).status, 200)
    clamd.start()
    until("it is ready again", lambda: status() == 200, service.process)
    service.stop()


@test
def what_exceeds_the_daemons_limits_is_not_clean(machine):
    clamd, user = machine.once(Clamd), machine.once(alice)
    icap = Icap(machine, clamd)
    below, above = user.upload(noise(80, LIMIT // 2)), user.upload(noise(81, LIMIT + 1))
    sealed = user.upload(noise(82, LIMIT + 1), encrypt=True)
    for service in (clamd.scanner(front(machine)), icap.scanner(front(machine))):
        same(service.get(f"/download/{below.path}", user.token).status, 200)
        for got in (
            service.get(f"/download/{above.path}", user.token),
            service.post("/download_encrypted", {"file": sealed.file}, user.token),
        ):
            is_refused(got, 403, "MCS_MEDIA_NOT_CLEAN")
            assert "Heuristics.Limits.Exceeded" in got.json()["info"], got
        service.stop()
    machine.stop(icap.process)
