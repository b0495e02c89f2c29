"""The Debian package in a real systemd: installed, one file edited, started, upgraded, removed and purged."""

import os
import subprocess

from harness import container
from harness.container import run_here
from harness.machine import until
from harness.run import same, test
from harness.scanner import REPOSITORY
from parts.systemd import UNIT, Service

NEEDS = [*container.NEEDS, "dpkg-deb", "dpkg-shlibdeps", "strip"]

CONFIG = f"/etc/{UNIT}/config.toml"
KEY = f"/var/lib/{UNIT}/request_secret"
LIBRARY = f"/usr/lib/{UNIT}"
# What was there before, as `dpkg` and `find` see it.
TRACES = f"find /etc /usr /var -xdev -name '*{UNIT}*' -o -xdev -name '*mcs-sandbox*'"


class Packaged(Service):
    """A machine that has the packages in /run/packages, and none installed."""

    def __init__(self, machine):
        folder = machine.make_folder("packages")
        run_here(REPOSITORY / "packaging/build", "--dev")
        [self.built] = (REPOSITORY / "target/debian").glob(f"{UNIT}_*.deb")
        # The next version is the same one with a higher number.
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
        """The one file, as an operator would edit it: rules, which need no daemon, and a homeserver."""
        base = f"http://127.0.0.1:{self.homeserver.server_port}"
        self.run("sed", "-i", f's|^# base_homeserver_url = .*|base_homeserver_url = "{base}"|', CONFIG)
        self.run("sed", "-i", 's|^script = .*|engines = ["rules"]|; s|^failure_exit_codes|# &|', CONFIG)
        self.run("sed", "-i", "s|^unix_sockets|# &|; s|^read_only|# &|", CONFIG)
        self.run("sed", "-i", f'$a [rules]\\npaths = ["/usr/share/{UNIT}/rules"]', CONFIG)

    def public_key(self):
        got = self.get("/public_key")
        same(got.status, 200, got)
        return got.json()["public_key"]

    def state(self):
        return self.run("systemctl", "is-active", UNIT, code=None), self.run("systemctl", "is-enabled", UNIT, code=None)


def packaged(machine):
    return Packaged(machine)


@test
def what_is_installed_is_complete_and_does_not_start_by_itself(machine):
    here = machine.once(packaged)
    here.install("first")
    same(here.state(), ("inactive", "disabled"))
    said = here.run(UNIT, "--version")
    assert said.startswith(UNIT), said
    for page in ["", "-check-config", "-migrate", "-public-key", "-sandbox", "-scan", "-serve"]:
        here.run("gzip", "-t", f"/usr/share/man/man1/{UNIT}{page}.1.gz")
    text = here.run("zcat", f"/usr/share/man/man1/{UNIT}.1.gz")
    assert "check\\-config" in text and "MCS_WEB__PORT" in text, text
    # As bash does it when somebody types "mig" and the tab key.
    completion = f"""
        . /usr/share/bash-completion/completions/{UNIT}
        function=$(complete -p {UNIT} | sed 's/.*-F //; s/ .*//')
        COMP_WORDS=({UNIT} mig) COMP_CWORD=1
        "$function" {UNIT} mig {UNIT}
        echo "${{COMPREPLY[*]}}"
    """
    same(here.run("bash", "-c", completion), "migrate")
    for file in ["default.toml", "strict.conf", "clamdscan.sh", "icap.sh", "yara.sh", "rules/programs.yar"]:
        here.run("test", "-s", f"/usr/share/{UNIT}/{file}")
    for file in ["copyright", "README.md", "CHANGELOG.md", "docs/from-python.md", "docs/proxies/nginx.conf"]:
        here.run("test", "-s", f"/usr/share/doc/{UNIT}/{file}")
    # Nobody's command.
    same(here.run("ls", LIBRARY).split(), [UNIT, "mcs-sandbox"])
    linked = subprocess.run(
        ["readelf", "--program-headers", here.container.root / f"{LIBRARY}/mcs-sandbox".lstrip("/")],
        capture_output=True, text=True, check=True,
    )
    assert "INTERP" not in linked.stdout, "the helper is linked dynamically"


@test
def with_one_file_edited_it_starts_and_scans(machine):
    here = machine.once(packaged)
    here.edit()
    here.systemctl("enable", "--now", UNIT)
    same(here.state(), ("active", "enabled"))
    here.judges()
    helper = f"{LIBRARY}/mcs-sandbox"
    said = here.run("journalctl", "--output=cat", "--unit", UNIT)
    assert f"helper={helper}" in said, said


@test
def a_reload_takes_over_what_was_edited_and_refuses_what_is_wrong(machine):
    here = machine.once(packaged)
    pid, config = here.shows("MainPID"), here.run("cat", CONFIG)
    for added, said in [
        ('[result_cache]\nttl = "2h"\n', "reloaded"),
        ("[result_cache]\nttl = 2\n", "the reload is refused"),
        ("", "reloaded"),
    ]:
        here.container.write(CONFIG, f"{config}\n{added}")
        told = lambda: here.run("journalctl", "--output=cat", "--unit", UNIT).count(said)
        before = told()
        here.systemctl("reload", UNIT)
        until("the reload's end", lambda: told() > before)
        here.judges()
    same(here.shows("MainPID"), pid)


@test
def an_upgrade_keeps_configuration_and_key_and_restarts_what_ran(machine):
    here = machine.once(packaged)
    key, pid, config = here.public_key(), here.shows("MainPID"), here.run("cat", CONFIG)
    here.install("next")
    until("it is up again", lambda: here.state() == ("active", "enabled"))
    assert here.shows("MainPID") != pid, "the old program still runs"
    same(here.run("dpkg-query", "--showformat", "${Version}", "--show", UNIT).endswith(".1"), True)
    same(here.run("cat", CONFIG), config)
    same(here.public_key(), key)
    here.judges()


@test
def what_is_removed_comes_back_as_it_was(machine):
    here = machine.once(packaged)
    key = here.public_key()
    here.run("dpkg", "--remove", UNIT)
    same(here.state()[0], "inactive")
    here.run("test", "-s", CONFIG)
    here.run("test", "-s", KEY)
    here.install("next")
    here.systemctl("start", UNIT)
    same(here.public_key(), key)


@test
def a_purge_leaves_nothing(machine):
    here = machine.once(packaged)
    here.run("dpkg", "--purge", UNIT)
    same(here.state()[0], "inactive")
    # dpkg's own memory of a package that is gone is none of the package's.
    left = [path for path in here.traces() if path not in here.before and not path.startswith("/var/lib/dpkg/")]
    same(left, [])
    same(os.path.exists(here.container.root / "usr/bin" / UNIT), False)
