"""ClamAV between a real homeserver and a client, with the shipped scripts: normal operation, a crash and restart of
clamd during a scan, and files above its limits."""

import concurrent.futures
import pathlib

from harness import homeserver
from harness.clamav import FAILURES, LIMIT, Clamd, Icap, signatures
from harness.machine import wait_until
from harness.run import assert_equal, test
from harness.samples import EICAR, noise, picture, zipped
from harness.scanner import Scanner
from parts.synapse import alice, assert_error, assert_verdict

NEEDS = ["clamd", "clamdscan", "clamscan", "c-icap", "c-icap-client"]

CLAMSCAN = 'exec clamscan --database={} --no-summary --infected "$1"'


def samples(machine):
    """Returns (name, whether the file is clean, plain media, encrypted media) per sample."""
    user = machine.shared(alice)
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


def assert_samples_detected(machine, service):
    """Requests all samples on all routes and asserts the responses."""
    token = machine.shared(alice).token
    for name, clean, plain, sealed in machine.shared(samples):
        body = {"file": sealed.file}
        assert_verdict(service.get(f"/scan/{plain.path}", token), clean, name)
        assert_verdict(service.post("/scan_encrypted", body, token), clean, name)
        for got, content in (
            (service.get(f"/download/{plain.path}", token), plain.content),
            (service.post("/download_encrypted", body, token), None),
        ):
            if clean:
                assert_equal(got.status, 200, f"{name}: {got}")
                assert content in (None, got.body), name
            else:
                assert_error(got, 403, "MCS_MEDIA_NOT_CLEAN", name)
                assert "EICAR" in got.json()["info"], got
    service.wait_until_idle()


def assert_failed(got, about=""):
    """Asserts the response for an unfinished scan: no verdict and no cause."""
    assert_error(got, 500, "M_UNKNOWN", about)
    assert "clean" not in got.json()["info"], got


def authenticated_homeserver(machine):
    return machine.shared(homeserver.authenticated)


@test
def shipped_clamdscan_script_detects_samples(machine):
    for unprivileged in (False, True):
        service = machine.shared(Clamd).start_scanner(authenticated_homeserver(machine), unprivileged=unprivileged)
        assert_samples_detected(machine, service)
        service.stop()


@test
def clamscan_detects_samples(machine):
    database = machine.shared(signatures)
    config = {"sandbox.read_only_paths": [str(database)], "scan.failure_exit_codes": FAILURES}
    service = Scanner(machine, authenticated_homeserver(machine), config, CLAMSCAN.format(database))
    assert_samples_detected(machine, service)
    service.stop()


@test
def shipped_icap_script_detects_samples(machine):
    for unprivileged in (False, True):
        icap = Icap(machine, machine.shared(Clamd))
        service = icap.start_scanner(authenticated_homeserver(machine), unprivileged=unprivileged)
        assert_samples_detected(machine, service)
        service.stop()
        machine.stop(icap.process)


def check_daemon_outage(machine, clamd, service, waiting_program):
    """Kills and restarts clamd during scans. `waiting_program` is the program that waits for clamd meanwhile."""
    user = machine.shared(alice)
    token = user.token
    cached, cached_infected = user.upload(noise(50, 5000)), user.upload(EICAR)
    clean, other = user.upload(noise(51, 5000)), user.upload(noise(52, 5000), encrypt=True)
    zip_ = user.upload(zipped(EICAR, "eicar.txt"))
    body = {"file": other.file}

    assert_equal(service.get(f"/download/{cached.path}", token).status, 200)
    assert_equal(service.get(f"/download/{cached_infected.path}", token).status, 403)
    clamd.pause()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(service.get, f"/download/{clean.path}", token),
            pool.submit(service.get, f"/scan/{zip_.path}", token),
        ]
        wait_until("both scans wait for clamd", lambda: len(running_processes(service, waiting_program)) == 2, service.process)
        clamd.kill()
        for response in waiting:
            assert_failed(response.result(), "clamd was killed during the scan")
    assert_failed(service.post("/scan_encrypted", body, token), "clamd is not running")
    # Cached verdicts remain valid.
    assert_equal(service.get(f"/download/{cached.path}", token).status, 200)
    assert_error(service.get(f"/download/{cached_infected.path}", token), 403, "MCS_MEDIA_NOT_CLEAN")

    clamd.start()

    def first_success(send):
        """Returns the first response that is not the cached failure. Failures are cached for a second."""
        return wait_until("scans succeed again", lambda: (got := send()).status != 500 and got, service.process, 30)

    got = first_success(lambda: service.get(f"/download/{clean.path}", token))
    assert_equal((got.status, got.body == clean.content), (200, True), got)
    assert_verdict(first_success(lambda: service.get(f"/scan/{zip_.path}", token)), False)
    assert_verdict(first_success(lambda: service.post("/scan_encrypted", body, token)), True)
    service.wait_until_idle()


def running_processes(service, name):
    """Returns the processes of this name among all descendants of the service."""
    found, pending = [], [str(service.process.pid)]
    while pending:
        for task in pathlib.Path("/proc", pending.pop()).glob("task/*/children"):
            try:
                children = task.read_text().split()
                matching = [pid for pid in children if pathlib.Path("/proc", pid, "comm").read_text().strip() == name]
            except OSError:
                continue
            pending += children
            found += matching
    return found


@test
def clamd_crash_during_scan_is_an_uncached_failure(machine):
    clamd = Clamd(machine)
    service = clamd.start_scanner(authenticated_homeserver(machine), {"result_cache.failure_ttl": "1s"})
    check_daemon_outage(machine, clamd, service, "clamdscan")
    service.stop()
    clamd.stop()


@test
def clamd_crash_behind_icap_is_an_uncached_failure(machine):
    clamd = Clamd(machine)
    icap = Icap(machine, clamd)
    service = icap.start_scanner(authenticated_homeserver(machine), {"result_cache.failure_ttl": "1s"})
    check_daemon_outage(machine, clamd, service, "c-icap-client")
    # The ICAP server itself is stopped.
    user = machine.shared(alice)
    machine.stop(icap.process)
    assert_failed(service.get(f"/scan/{user.upload(noise(60, 500)).path}", user.token), "no ICAP server")
    service.stop()
    clamd.stop()


@test
def failing_canary_makes_service_unavailable(machine):
    clamd, user = Clamd(machine), machine.shared(alice)
    service = clamd.start_scanner(authenticated_homeserver(machine), {"scan.canary_interval": "1s", "result_cache.failure_ttl": "1s"})
    cached, fresh = user.upload(picture("PNG", seed=70)), user.upload(picture("PNG", seed=71))
    assert_equal(service.get(f"/download/{cached.path}", user.token).status, 200)
    clamd.stop()

    def status():
        return service.get(f"/download/{fresh.path}", user.token).status

    wait_until("the service is not ready", lambda: status() == 503, service.process)
    got = service.get(f"/download/{fresh.path}", user.token)
    assert_error(got, 503, "M_UNKNOWN")
    assert int(got.header("retry-after")) > 0, got
    assert_equal(service.get(f"/download/{cached.path}", user.token).status, 200)
    clamd.start()
    wait_until("the service is ready again", lambda: status() == 200, service.process)
    service.stop()


@test
def files_above_clamd_limits_are_not_clean(machine):
    clamd, user = machine.shared(Clamd), machine.shared(alice)
    icap = Icap(machine, clamd)
    below, above = user.upload(noise(80, LIMIT // 2)), user.upload(noise(81, LIMIT + 1))
    sealed = user.upload(noise(82, LIMIT + 1), encrypt=True)
    for service in (clamd.start_scanner(authenticated_homeserver(machine)), icap.start_scanner(authenticated_homeserver(machine))):
        assert_equal(service.get(f"/download/{below.path}", user.token).status, 200)
        for got in (
            service.get(f"/download/{above.path}", user.token),
            service.post("/download_encrypted", {"file": sealed.file}, user.token),
        ):
            assert_error(got, 403, "MCS_MEDIA_NOT_CLEAN")
            assert "Heuristics.Limits.Exceeded" in got.json()["info"], got
        service.stop()
    machine.stop(icap.process)
