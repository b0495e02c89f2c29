"""The Debian package under a real systemd: installation, configuration, start, upgrade, removal and purge."""

import os
import subprocess

from harness import container
from harness.container import run_here
from harness.machine import wait_until
from harness.run import assert_equal, test
from harness.scanner import REPOSITORY
from parts.systemd import UNIT, Service

NEEDS = [*container.NEEDS, "dpkg-deb", "dpkg-shlibdeps", "strip"]

CONFIG = f"/etc/{UNIT}/config.toml"
KEY = f"/var/lib/{UNIT}/request_secret"
LIBRARY = f"/usr/lib/{UNIT}"
# Lists the files of the package.
TRACES = f"find /etc /usr /var -xdev -name '*{UNIT}*' -o -xdev -name '*mcs-sandbox*'"


class Packaged(Service):
    """A container with the package and a newer version in /mnt, neither of them installed."""

    def __init__(self, machine):
        folder = machine.make_folder("packages")
        run_here(REPOSITORY / "packaging/build", "--dev")
        [self.built] = (REPOSITORY / "target/debian").glob(f"{UNIT}_*.deb")
        # The newer version has the same content and a higher version number.
        tree = folder / "next"
        run_here("dpkg-deb", "--raw-extract", self.built, tree)
        control = tree / "DEBIAN/control"
        lines = [f"{line}.1" if line.startswith("Version: ") else line for line in control.read_text().splitlines()]
        control.write_text("\n".join(lines) + "\n")
        run_here("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, folder / "next.deb")
        super().__init__(machine, {"/mnt/first.deb": self.built, "/mnt/next.deb": folder / "next.deb"})
        self.before = self.traces()

    def traces(self):
        return sorted(self.run("sh", "-c", TRACES).splitlines())

    def install(self, name):
        return self.run("dpkg", "--install", f"/mnt/{name}.deb")

    def edit(self):
        """Edits the configuration as an operator would: sets the homeserver and the rules engine, which needs no
        daemon."""
        base = f"http://127.0.0.1:{self.homeserver.server_port}"
        self.run("sed", "-i", f's|^# base_homeserver_url = .*|base_homeserver_url = "{base}"|', CONFIG)
        self.run("sed", "-i", 's|^engines = .*|engines = ["rules"]|', CONFIG)
        self.run("sed", "-i", f'$a [rules]\\npaths = ["/usr/share/{UNIT}/rules"]', CONFIG)

    def public_key(self):
        got = self.get("/public_key")
        assert_equal(got.status, 200, got)
        return got.json()["public_key"]

    def state(self):
        return self.run("systemctl", "is-active", UNIT, code=None), self.run("systemctl", "is-enabled", UNIT, code=None)


def packaged(machine):
    return Packaged(machine)


@test
def installation_is_complete_and_does_not_start_service(machine):
    package = machine.shared(packaged)
    package.install("first")
    assert_equal(package.state(), ("inactive", "disabled"))
    output = package.run(UNIT, "--version")
    assert output.startswith(UNIT), output
    for page in ["", "-check-config", "-completions", "-doctor", "-generate-key", "-migrate", "-public-key", "-sandbox", "-scan", "-serve"]:
        package.run("gzip", "-t", f"/usr/share/man/man1/{UNIT}{page}.1.gz")
    text = package.run("zcat", f"/usr/share/man/man1/{UNIT}.1.gz")
    assert "check\\-config" in text and "MCS_WEB__PORT" in text, text
    # Completes "mig" as bash does after the tab key.
    completion = f"""
        . /usr/share/bash-completion/completions/{UNIT}
        function=$(complete -p {UNIT} | sed 's/.*-F //; s/ .*//')
        COMP_WORDS=({UNIT} mig) COMP_CWORD=1
        "$function" {UNIT} mig {UNIT}
        echo "${{COMPREPLY[*]}}"
    """
    assert_equal(package.run("bash", "-c", completion), "migrate")
    for file in ["default.toml", "testing.toml", "strict.conf", "clamdscan.sh", "icap.sh", "yara.sh", "rules/programs.yar"]:
        package.run("test", "-s", f"/usr/share/{UNIT}/{file}")
    for file in ["copyright", "README.md", "CHANGELOG.md", "docs/from-python.md", "docs/proxies/nginx.conf"]:
        package.run("test", "-s", f"/usr/share/doc/{UNIT}/{file}")
    # The helper is not installed as a command.
    assert_equal(package.run("ls", LIBRARY).split(), [UNIT, "mcs-sandbox"])
    linked = subprocess.run(
        ["readelf", "--program-headers", package.container.root / f"{LIBRARY}/mcs-sandbox".lstrip("/")],
        capture_output=True, text=True, check=True,
    )
    assert "INTERP" not in linked.stdout, "the helper is linked dynamically"


@test
def starts_and_scans_after_editing_configuration(machine):
    package = machine.shared(packaged)
    package.edit()
    package.systemctl("enable", "--now", UNIT)
    assert_equal(package.state(), ("active", "enabled"))
    package.assert_scans()
    helper = f"{LIBRARY}/mcs-sandbox"
    output = package.run("journalctl", "--output=cat", "--unit", UNIT)
    assert f"helper={helper}" in output, output


@test
def reload_applies_valid_and_rejects_invalid_configuration(machine):
    package = machine.shared(packaged)
    pid, config = package.get_property("MainPID"), package.run("cat", CONFIG)
    for added, message in [
        ('[result_cache]\nttl = "2h"\n', "reloaded"),
        ("[result_cache]\nttl = 2\n", "reload rejected"),
        ("", "reloaded"),
    ]:
        package.container.write(CONFIG, f"{config}\n{added}")
        count = lambda: package.run("journalctl", "--output=cat", "--unit", UNIT).count(message)
        before = count()
        package.systemctl("reload", UNIT)
        wait_until("the reload has ended", lambda: count() > before)
        package.assert_scans()
    assert_equal(package.get_property("MainPID"), pid)


@test
def upgrade_keeps_configuration_and_key_and_restarts_service(machine):
    package = machine.shared(packaged)
    key, pid, config = package.public_key(), package.get_property("MainPID"), package.run("cat", CONFIG)
    package.install("next")
    wait_until("the service is active again", lambda: package.state() == ("active", "enabled"))
    assert package.get_property("MainPID") != pid, "the old program still runs"
    assert_equal(package.run("dpkg-query", "--showformat", "${Version}", "--show", UNIT).endswith(".1"), True)
    assert_equal(package.run("cat", CONFIG), config)
    assert_equal(package.public_key(), key)
    package.assert_scans()


@test
def removal_keeps_configuration_and_key(machine):
    package = machine.shared(packaged)
    key = package.public_key()
    package.run("dpkg", "--remove", UNIT)
    assert_equal(package.state()[0], "inactive")
    package.run("test", "-s", CONFIG)
    package.run("test", "-s", KEY)
    package.install("next")
    package.systemctl("start", UNIT)
    assert_equal(package.public_key(), key)


@test
def purge_removes_everything(machine):
    package = machine.shared(packaged)
    package.run("dpkg", "--purge", UNIT)
    assert_equal(package.state()[0], "inactive")
    # Records of dpkg do not belong to the package.
    remaining = [path for path in package.traces() if path not in package.before and not path.startswith("/var/lib/dpkg/")]
    assert_equal(remaining, [])
    assert_equal(os.path.exists(package.container.root / "usr/bin" / UNIT), False)
