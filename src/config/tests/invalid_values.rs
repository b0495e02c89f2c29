//! Configurations with one invalid value each, and parts of their error texts.

/// An invalid configuration and a part of its error text.
pub(super) type InvalidCase = (&'static str, &'static str);

/// Unknown keys, `[web]`, `[operations]` and `[audit]`.
pub(super) const LISTENERS: &[InvalidCase] = &[
    ("web.port = 70000", "web.port: found 70000, expected an integer from 0 to 65535"),
    ("web.port = \"8080\"", "web.port: found \"8080\", expected an integer"),
    ("web.port = -1", "found -1"),
    ("web.port = 99999999999999999999", "more than 64 bits"),
    ("web.port = 80.5", "a number with a decimal point"),
    ("web.prot = 1", "web.prot: found an unknown key, expected web.port?"),
    ("web.base_homeserver_url = 1", "expected download.base_homeserver_url?"),
    ("web.zzz = 1", "web.zzz: found an unknown key, expected one of header_timeout, host,"),
    ("scan.zzz = 1", "scan.zzz: found an unknown key, expected one of those in default.toml"),
    ("zzzzzz.x = 1", "zzzzzz: found an unknown section, expected one of admin, audit,"),
    ("dowload.max_siz = 1", "dowload: found an unknown section, expected download?"),
    (
        "sandbox.limits.cputime = \"1s\"",
        "sandbox.limits.cputime: found an unknown key, expected sandbox.limits.cpu_time?",
    ),
    ("sandbox.limits = 3", "sandbox.limits: found 3, expected a table"),
    ("dowload.x = 1", "dowload: found an unknown section, expected download?"),
    ("port = 1", "port: found outside any section"),
    ("web.host = \"localhost:80\"", "web.host: found \"localhost:80\", expected an address"),
    ("web.host = \"\"", "web.host: found \"\""),
    ("web.socket = \"s\"\nweb.host = \"::\"", "web.host: found beside socket"),
    ("web.max_connections = 0", "from 1 to"),
    (
        "operations.enabled = \"no\"",
        "operations.enabled: found \"no\", expected true or false, without quotation marks",
    ),
    ("web.port = \"8080\"", "expected an integer from 0 to 65535, without quotation marks"),
    (
        "store.urls = \"redis://u:hush@h\"",
        "store.urls: found a string, expected a list, written like [\"one\"",
    ),
    (
        "download.trusted_proxies = \"::1\"",
        "found \"::1\", expected a list, written like [\"::1\"]",
    ),
    ("log.format = \"jsno\"", "expected \"human\" or \"json\" (\"json\"?)"),
    (
        "scan.timeout = \"60\"",
        "expected a duration from 1ms to 3650d, written like \"500ms\", \"1h 30m\" or \"1d\", for instance \"60s\"",
    ),
    ("web = [{ port = 1 }]", "web: found [[web]], expected [web]"),
    ("operations.port = 70000", "operations.port: found 70000, expected an integer from 0 to"),
    ("operations.host = \"a b\"", "operations.host: found \"a b\", expected an address"),
    ("operations.socket = \"s\"\noperations.port = 1", "operations.port: found beside socket"),
    ("web.port = 9\noperations.port = 9", "operations.port: found the address of [web]"),
    ("web.socket = \"s\"\noperations.socket = \"s\"", "found the address of [web]"),
    ("admin.enabled = true", "admin.token_path: missing, expected the path of a file"),
    ("admin.enabled = true\nadmin.token_path = 't'", "admin.socket: missing, expected the path of"),
    (
        "admin.enabled = true\nadmin.token_path = 't'\nadmin.socket = 's'",
        "audit.path: missing, expected a file or \"-\" (standard output), since admin.enabled is true",
    ),
    ("admin.host = '::1'", "admin.port: missing, expected a port, since host is set"),
    ("admin.port = 1", "admin.host: missing, expected an address, since port is set"),
    ("admin.port = 1\nadmin.socket = 's'", "admin.port: found beside socket"),
    ("admin.hosts = ['127.0.0.1']", "admin.hosts[0]: found \"127.0.0.1\", expected a host name"),
    ("admin.hosts = ['a:1']", "admin.hosts[0]: found \"a:1\", expected a host name"),
    (
        "admin = { enabled = true, token_path = 't', socket = 's' }\nweb.socket = 's'\naudit.path = '-'",
        "admin.socket: found the address of [web]",
    ),
    (
        "admin = { enabled = true, token_path = 'jobs/t', socket = 's' }\naudit.path = '-'\n\
         sandbox.read_only_paths = ['jobs']",
        "admin.token_path: found ",
    ),
    (
        "admin = { enabled = true, token_path = 't', socket = 'jobs/s' }\naudit.path = '-'\n\
         sandbox.writable_paths = ['jobs']",
        "admin.socket: found ",
    ),
    ("operation.port = 1", "operation: found an unknown section, expected operations?"),
    ("audit.path = 1", "audit.path: found 1, expected the path of a file"),
    ("audit.path = \"\"", "audit.path: found \"\", expected the path of a file"),
    ("audit.path = \"absent/audit\"", "absent/audit\", which has no existing parent directory"),
    ("audit.path = \"jobs\"", "jobs\", which is a directory"),
    (
        "audit.user = \"hashed\"",
        "audit.user: found \"hashed\", expected \"off\" or \"hash\" or \"full\" (\"hash\"?)",
    ),
    ("audit.client_address = 1", "audit.client_address: found 1, expected true or false"),
    ("audit.file = \"x\"", "audit.file: found an unknown key"),
    ("audit.path = \"jobs/audit\"\nsandbox.read_only_paths = [\"jobs\"]", "audit.path: found "),
    (
        "web.header_timeout = 10",
        "found 10, expected a duration from 1ms to 1h, written like \"500ms\", \"1h 30m\" or \"1d\", for instance \"10s\"",
    ),
    ("web.header_timeout = 0", "found 0, expected a duration from 1ms"),
    ("web.header_timeout = \"10\"", "expected a duration"),
    ("web.header_timeout = \"2h\"", "from 1ms to 1h"),
    ("web.max_body_size = \"1 elephant\"", "expected a size from 1KiB to 64MiB, written like"),
];

/// `[incident]`, `[quarantine]` and `[[notify]]`, below what makes them valid.
pub(super) const INCIDENTS: &[InvalidCase] = &[
    ("incident.keep = 0", "incident.keep: found 0, expected a duration from 1s"),
    ("incident.rescan = 'all'", "expected \"off\" or \"recent\""),
    (
        "incident.rescan = 'recent'",
        "incident.token_path: missing, expected the path of a file with the access token",
    ),
    ("incident.rate = 0", "incident.rate: found 0, expected an integer from 1 to 100"),
    ("incident.rescan_delay = '1ms'", "expected a duration from 1s to 1day"),
    (
        "incident = { rescan = 'recent', token_path = 't' }\nstore.kind = 'none'",
        "store.kind: missing, expected \"file\" with a path or a state directory, or \"shared\", since",
    ),
    (
        "incident = { rescan = 'recent', token_path = 't' }\nstore.path = 's'",
        "download.base_homeserver_url: missing, expected the homeserver whose media is scanned again",
    ),
    (
        "incident = { rescan = 'recent', token_path = 'jobs/t' }\nsandbox.read_only_paths = ['jobs']",
        "incident.token_path: found ",
    ),
    ("quarantine.at = 'dendrite'", "expected \"off\" or \"synapse\" or \"media-repo\""),
    ("quarantine.at = 'synapse'", "quarantine.token_path: missing, expected the path of a file"),
    ("quarantine.rate = 0", "quarantine.rate: found 0, expected an integer from 1 to 1000"),
    (
        "quarantine.base_url = 'https://a:b@c'",
        "quarantine.base_url: found a string, expected an http",
    ),
    (
        "quarantine = { at = 'synapse', token_path = 't' }\nstore.kind = 'none'",
        "store.kind: missing, expected \"file\" with a path or a state directory, or \"shared\", since [quarantine]",
    ),
    (
        "notify = [{ webhook = 'https://a', secret_path = 's' }]\nstore.kind = 'none'",
        "since [[notify]] needs a store",
    ),
    (
        "quarantine = { at = 'synapse', token_path = 't' }\nstore = { kind = 'shared', urls = ['redis://a'] }",
        "download.base_homeserver_url: missing, expected the homeserver whose media is quarantined",
    ),
    (
        "quarantine = { at = 'synapse', token_path = 't' }\nstore.path = 's'",
        "download.base_homeserver_url: missing, expected the homeserver whose media is quarantined",
    ),
    (
        "quarantine = { at = 'synapse', token_path = 't' }\nstore.path = 's'\n\
         download.homeservers = { a = 'https://a', b = 'https://b' }",
        "download.base_homeserver_url: missing",
    ),
    (
        "quarantine = { at = 'synapse', token_path = 'jobs/t' }\nsandbox.read_only_paths = ['jobs']",
        "quarantine.token_path: found ",
    ),
    (
        "notify = [{ webhook = 'https://a', secret_path = 'jobs/s' }]\nsandbox.writable_paths = ['jobs']",
        "notify.targets: found ",
    ),
    ("notify = 1", "notify: found outside any section"),
    ("notify = [1]", "notify.targets[0]: found 1, expected a table"),
    (
        "notify = [{}]",
        "notify.targets[0]: found other keys, expected either webhook and secret_path",
    ),
    ("notify = [{ webhook = 'https://a' }]", "expected either webhook and secret_path, or room"),
    (
        "notify = [{ webhook = 'https://a', secret_path = 's', room = '!a' }]",
        "notify.targets[0]: found other keys",
    ),
    ("notify = [{ url = 'https://a' }]", "notify.targets[0].url: found an unknown key"),
    (
        "notify = [{ webhook = 'http://a/secret' }]",
        "notify.targets[0].webhook: found a string, expected an https URL",
    ),
    ("notify = [{ webhook = 'http://127.0.0.1.example' }]", "expected an https URL"),
    ("notify = [{ webhook = 'https://u:p@a' }]", "notify.targets[0].webhook: found a string"),
    (
        "notify = [{ room = '#a:b' }]",
        "notify.targets[0].room: found \"#a:b\", expected the ID of a room",
    ),
    (
        "notify = [{ homeserver = 'a' }]",
        "notify.targets[0].homeserver: found \"a\", expected an http",
    ),
    ("notify.targets = 1", "notify.targets: found 1, expected a list"),
];

/// `[scan]`.
pub(super) const SCAN: &[InvalidCase] = &[
    (
        "scan.script = \"absent.sh\"",
        "absent.sh\", which does not exist, expected the path of an executable file",
    ),
    ("scan.script = \"plain\"", "plain\", which is not executable (chmod +x)"),
    ("scan.script = \"/\"", "which is not a regular file"),
    ("scan.script = \"\"", "scan.script: found \"\""),
    ("scan.script = [\"scan.sh\"]", "scan.script: found a list"),
    (
        "scan.script_args = [\"a\", 2, \"b\\u0000\"]",
        "scan.script_args[1]: found 2, expected a string",
    ),
    ("scan.script_args = [\"a\", 2, \"b\\u0000\"]", "scan.script_args[2]: found \"b\\u0000\""),
    (
        "scan.workers = 2\nscan.max_scripts = 3",
        "scan.max_scripts: found 3, expected at most scan.workers, 2",
    ),
    ("scan.workers = 1025", "from 1 to 1024"),
    (
        "scan.temp_directory = \"a b\"",
        "which contains other characters, expected only [A-Za-z0-9._/-]",
    ),
    (
        "scan.temp_directory = \"absent\"",
        "which does not exist, expected the path of a writable directory",
    ),
    ("scan.temp_directory = \"plain\"", "which is not a directory"),
    (
        "scan.temp_directory = \"jobs\"\nsandbox.writable_paths = [\"jobs\"]",
        "jobs, which scripts can read",
    ),
    ("scan.removal_command = \"rm\"", "scan.removal_command: found \"rm\", expected a list"),
    ("scan.removal_command = []", "expected at least a program"),
    ("scan.removal_command = [\"rm\"]", "rm\", which does not exist"),
    (
        "scan.allowed_mimetypes = []",
        "found an empty list, expected at least one type; remove the key",
    ),
    ("scan.blocked_mimetypes = []", "remove the key to allow every type"),
    (
        "scan.allowed_mimetypes = [\"image/*\"]",
        "scan.allowed_mimetypes[0]: found \"image/*\", expected one type without wildcards",
    ),
    (
        "scan.allowed_mimetypes = [\"a/b\"]\nscan.blocked_mimetypes = [\"a/b\"]",
        "scan.blocked_mimetypes: found beside allowed_mimetypes",
    ),
    (
        "scan.failure_exit_codes = [2, 0]",
        "scan.failure_exit_codes[1]: found 0, expected an exit code from 1 to 255",
    ),
    ("scan.failure_exit_codes = [256]", "found 256"),
];

/// `[sandbox]`.
pub(super) const SANDBOX: &[InvalidCase] = &[
    ("sandbox.user = \"no such user\"", "no such user exists"),
    ("sandbox.user = \"root\"", ", not root"),
    ("sandbox.user = \"0:1\"", ", not root"),
    ("sandbox.user = \"1:-2\"", "sandbox.user: found \"1:-2\""),
    (
        "sandbox.environment = { \"A=B\" = \"hush\" }",
        "sandbox.environment.\"A=B\": found a string, expected a name",
    ),
    ("sandbox.environment = { TMPDIR = \"hush\" }", "sets this variable for each job"),
];

/// `[download]`.
pub(super) const DOWNLOAD: &[InvalidCase] = &[
    (
        "download.base_homeserver_url = \"matrix.org\"",
        "found \"matrix.org\", expected \"https://matrix.org\"?",
    ),
    ("download.base_homeserver_url = \"ftp://matrix.org\"", "expected an http or https URL"),
    ("download.base_homeserver_url = \"https:matrix.org\"", "expected an http or https URL"),
    ("download.base_homeserver_url = \"https:/matrix.org\"", "expected \"https://matrix.org\"?"),
    ("download.base_homeserver_url = \" https://matrix.org\"", "expected \"https://matrix.org\"?"),
    ("download.base_homeserver_url = \"https://m.org:84480\"", "expected a port from 1 to 65535"),
    ("download.base_homeserver_url = \"u:hush@matrix.org\"", "found a string, expected an http"),
    ("download.base_homeserver_url = \"https://matrix.org/?q\"", "without query, fragment"),
    ("download.base_homeserver_url = \"https://matrix.org/#f\"", "without query, fragment"),
    (
        "download.base_homeserver_url = \"https://u:hush@matrix.org\"",
        "found a string, expected an http",
    ),
    (
        "download.homeservers = { \"a/b\" = \"https://x\" }",
        "download.homeservers.\"a/b\": found \"a/b\", expected a host",
    ),
    ("download.homeservers = { a = \"https://x\", A = \"https://y\" }", "found a twice"),
    (
        "download.proxy = \"socks5://u:hush@p\"",
        "download.proxy: found a string, expected an http or https URL without path",
    ),
    (
        "download.additional_headers = { \"a b\" = \"hush\" }",
        "download.additional_headers.\"a b\": found \"a b\", expected a header name",
    ),
    (
        "download.additional_headers = { a = \"hush\\n\" }",
        "download.additional_headers.a: found a string, expected a header value",
    ),
    ("download.additional_headers = { Authorization = \"hush\" }", "this one is the requester's"),
    (
        "download.headers_to_forward = [\"Connection\"]",
        "download.headers_to_forward[0]: found \"Connection\", expected another header",
    ),
    (
        "download.headers_to_forward = [\"If-None-Match\", \"a b\"]",
        "headers_to_forward[1]: found \"a b\", expected a header name",
    ),
    (
        "download.headers_to_forward = [\"X-Forwarded-For\"]\ndownload.forward_client_address = true",
        "expected one of the two",
    ),
    (
        "download.trusted_proxies = [\"10.0.0.0/33\"]",
        "download.trusted_proxies[0]: found \"10.0.0.0/33\", expected a network",
    ),
    ("download.ca_certificates = \"absent\"", "expected the path of a readable file"),
    ("download.forward_client_address = \"yes\"", "found \"yes\", expected true or false"),
];

/// `[crypto]`.
pub(super) const CRYPTO: &[InvalidCase] = &[
    (
        "crypto.request_secret_path = \"jobs/key\"\nsandbox.read_only_paths = [\"jobs\"]",
        "crypto.request_secret_path: found ",
    ),
    (
        "crypto.generate = true",
        "crypto.request_secret_path: missing, expected the path of the request key",
    ),
    (
        "crypto.request_secret_path = \"k\"\ncrypto.pickle_path = \"p\"\ncrypto.pickle_key = \"hush\"",
        "crypto.pickle_path: found beside request_secret_path",
    ),
    ("crypto.pickle_path = \"p\"", "crypto.pickle_key: missing"),
    ("crypto.pickle_key = \"hush\"", "crypto.pickle_path: missing"),
    (
        "crypto.pickle_path = \"p\"\ncrypto.pickle_key = 7",
        "crypto.pickle_key: found an integer, expected a string",
    ),
    (
        "crypto.pickle_path = \"p\"\ncrypto.pickle_key = \"hush\"\ncrypto.generate = true",
        "crypto.generate: found true beside pickle_path",
    ),
];

/// `[store]`.
pub(super) const STORE: &[InvalidCase] = &[
    (
        "store.kind = \"redis\"",
        "store.kind: found \"redis\", expected \"auto\" or \"file\" or \"shared\" or \"none\"",
    ),
    ("store.kind = \"shared\"", "store.urls: missing, expected the addresses of the servers"),
    ("store.urls = [\"redis://a\"]", "store.urls: found without kind = \"shared\""),
    (
        "store.kind = \"shared\"\nstore.urls = [\"redis://user@a\"]",
        "store.urls: the shared store has a user, but no password",
    ),
    (
        "store.kind = \"shared\"\nstore.urls = [\"redis://user:pw@a\"]\nstore.password_path = \"p\"",
        "store.urls: the password of the shared store is given twice",
    ),
    (
        "store.kind = \"shared\"\nstore.urls = [\"redis://a\"]\nstore.wait = \"forever\"",
        "store.wait: found \"forever\"",
    ),
    (
        "store.kind = \"shared\"\nstore.urls = [\"redis://a\"]\nstore.password_path = \"jobs/p\"\n\
         sandbox.read_only_paths = [\"jobs\"]",
        "which scripts can read",
    ),
    (
        "store.secret_path = \"jobs/s\"\nstore.path = \"s\"\nsandbox.read_only_paths = [\"jobs\"]",
        "which scripts can read",
    ),
    ("store.kind = \"file\"", "store.path: missing, expected the path of a file, or a state"),
    ("store.path = \"absent/store.db\"", "store.path: found "),
    ("store.path = \"jobs\"", "is a directory"),
    (
        "store.path = \"jobs/store.db\"\nsandbox.writable_paths = [\"jobs\"]",
        "which scripts can read",
    ),
    (
        "store.path = \"jobs/store.db\"\nscan.temp_directory = \"jobs\"",
        "expected a path outside scan.temp_directory",
    ),
    ("store.max_entries = 999", "store.max_entries: found 999, expected an integer from 1000"),
    ("store.not_clean_ttl = \"0s\"", "store.not_clean_ttl: found \"0s\", expected a duration from"),
];

/// Limits of all sections, `[result_cache]` and `[log]`.
pub(super) const LIMITS: &[InvalidCase] = &[
    (
        "web.idle_timeout = \"2h\"",
        "web.idle_timeout: found \"2h\", expected a duration from 1ms to 1h",
    ),
    ("web.min_rate = \"2GiB\"", "web.min_rate: found \"2GiB\", expected a size from 0"),
    ("scan.timeout = 0", "scan.timeout: found 0"),
    ("scan.deadline = \"0s\"", "scan.deadline: found \"0s\""),
    (
        "scan.queue_capacity = 0",
        "scan.queue_capacity: found 0, expected an integer from 1 to 65536",
    ),
    ("scan.max_spool_size = 0", "scan.max_spool_size: found 0"),
    ("scan.max_output_size = \"2MiB\"", "scan.max_output_size: found \"2MiB\""),
    (
        "scan.canary = \"sometimes\"",
        "scan.canary: found \"sometimes\", expected \"eicar\", \"off\"",
    ),
    ("scan.canary = { infected = \"plain\" }", "scan.canary: found"),
    ("scan.canary_interval = \"10ms\"", "scan.canary_interval: found \"10ms\""),
    ("download.max_size = 0", "download.max_size: found 0"),
    ("download.connect_timeout = 0", "download.connect_timeout: found 0"),
    ("download.idle_timeout = 0", "download.idle_timeout: found 0"),
    ("download.total_timeout = \"1\"", "download.total_timeout: found \"1\""),
    ("download.min_rate = -1", "download.min_rate: found -1"),
    ("download.authorisation_ttl = \"-1s\"", "download.authorisation_ttl: found \"-1s\""),
    ("result_cache.max_size = -1", "result_cache.max_size: found -1"),
    ("result_cache.ttl = \"1\"", "result_cache.ttl: found \"1\""),
    ("result_cache.max_file_size = \"x\"", "result_cache.max_file_size: found \"x\""),
    ("result_cache.max_total_size = \"1 XB\"", "result_cache.max_total_size: found \"1 XB\""),
    ("result_cache.exit_codes_to_ignore = [1, 256]", "exit_codes_to_ignore[1]: found 256"),
    ("result_cache.failure_ttl = 5", "result_cache.failure_ttl: found 5, expected a duration"),
    ("log.level = \"inof\"", "log.level: found \"inof\", expected one of off, error"),
    ("log.level = \"a=b=c\"", "log.level"),
    ("log.format = \"xml\"", "log.format: found \"xml\", expected \"human\" or \"json\""),
];
