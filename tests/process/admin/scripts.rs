//! What a hostile script can do to the listener, its token and the store. The sandbox's own tests run such attacks under each
//! plan (`sandbox/README.md`).

use super::*;
use crate::harness::report_skipped;

/// Tries each attack, and writes "NAME RESULT" for each to `$MARKS/results`.
const ATTACKS: &str = r#"
    use strict; use Fcntl qw(:flock); use IO::Socket::UNIX; use IO::Socket::INET;
    my ($dir, $marks, $port) = @ARGV;
    open(my $out, '>', "$marks/results") or die;
    sub attempt { my ($name, $succeeded) = @_; print $out $name, ' ', $succeeded ? 'yes' : 'no', "\n" }
    attempt('token', open(my $token, '<', "$dir/admin-token"));
    attempt('read', open(my $read, '<', "$dir/state/store.db"));
    attempt('write', open(my $write, '+<', "$dir/state/store.db"));
    my $lock;
    attempt('lock', open($lock, '<', "$dir/state/store.db.lock") && flock($lock, LOCK_EX | LOCK_NB));
    attempt('create', open(my $new, '>', "$dir/state/store.db-journal"));
    open(my $own, '>', "$marks/own") or die;
    attempt('replace', rename("$marks/own", "$dir/state/store.db"));
    attempt('remove', unlink("$dir/state/store.db"));
    attempt('remove-socket', unlink("$dir/admin.sock"));
    sub status {
        my ($socket, $path, $headers, $body) = @_;
        return 'unreachable' unless $socket;
        print $socket "POST $path HTTP/1.1\r\nHost: localhost\r\n$headers\r\n",
            'Content-Length: ', length($body), "\r\n\r\n$body";
        my $line = <$socket>;
        return (split ' ', $line)[1];
    }
    my $json = "Content-Type: application/json\r\nAuthorization: Bearer guess";
    my $form = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\nOrigin: null";
    my $allow = '{"content":"' . ('0' x 64) . '","action":"allow","comment":"x"}';
    if ($port) {
        my $connect = sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") };
        print $out 'port ', status($connect->(), '/v1/decisions', $json, $allow), "\n";
        print $out 'page ', status($connect->(), '/sign-in', $form, 'token=guess'), "\n";
    }
    my $socket = IO::Socket::UNIX->new(Peer => "$dir/admin.sock");
    print $out 'socket ', status($socket, '/v1/forget', $json, '{"all":true}'), "\n";
    close($out);
"#;

/// Runs the attacks as a scan script. Returns their results.
async fn attack(builder: ScannerBuilder, port: Option<u16>) -> (Vec<String>, ScannerProcess) {
    let dir = builder.dir();
    dir.write_executable("attacks.pl", ATTACKS);
    let [root, marks] = [dir.path(""), dir.path("marks")].map(|path| path.display().to_string());
    let port = port.map(|port| port.to_string()).unwrap_or_default();
    let root = root.trim_end_matches('/');
    let script = format!("exec perl {root}/attacks.pl {root} {marks} {port}");
    dir.write_script("script.sh", &script);
    let lines = format!("sandbox.read_only_paths = [\"{root}/attacks.pl\"]");
    let (fixture, scanner) = AdminFixture::start(builder.config(&lines)).await;
    let clean = scanner.client.get(&format!("/scan/{}", fixture.clean)).await;
    assert_eq!(clean.status, 200, "{}", scanner.log());
    let results = scanner.dir.read_mark("results").lines().map(str::to_owned).collect();
    (results, scanner)
}

/// Without namespaces: the other layers only.
const WITHOUT_NAMESPACES: &[&str] =
    &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];

/// Returns the ways to start the service: with all layers, and without namespaces. `None` if attacks cannot be tried.
fn plans(test: &str) -> Option<Vec<&'static [&'static str]>> {
    if !std::path::Path::new("/usr/bin/perl").exists() {
        report_skipped(test, "no perl");
        return None;
    }
    let mut plans = vec![&[][..]];
    if nix::unistd::geteuid().is_root() {
        plans.push(WITHOUT_NAMESPACES);
    } else {
        report_skipped(test, "removing namespaces needs root");
    }
    Some(plans)
}

#[tokio::test]
async fn scripts_cannot_use_the_listener_or_the_store() {
    let Some(plans) = plans("scripts_cannot_use_the_listener_or_the_store") else { return };
    for wrapper in plans {
        let mut builder = with_store("sandbox.network = \"host\"");
        if !wrapper.is_empty() {
            builder = builder.wrapped_by(wrapper);
        }
        let (results, scanner) = attack(builder, None).await;
        assert_eq!(results.len(), 9, "{results:?}");
        let (socket, others) = results.split_last().unwrap();
        assert!(others.iter().all(|result| result.ends_with(" no")), "{wrapper:?} {results:?}");
        assert!(matches!(&**socket, "socket unreachable" | "socket 401"), "{results:?}");
        // The listener and the store work as before.
        store_succeeds(&scanner.dir, &["list"]).await;
        assert!(audit_lines(&scanner.dir).is_empty());
    }
}

#[tokio::test]
async fn scripts_with_network_access_need_the_token() {
    let Some(plans) = plans("scripts_with_network_access_need_the_token") else { return };
    for wrapper in plans {
        check_port(wrapper).await;
    }
}

/// Lets a script send an allow request to the port, and sign in at the page.
async fn check_port(wrapper: &'static [&'static str]) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let builder = ScannerBuilder::new(SCRIPT);
    let token = builder.dir().path("admin-token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(token, fs::Permissions::from_mode(0o600)).unwrap();
    let builder = builder.config(&format!(
        "admin.enabled = true\nadmin.host = \"127.0.0.1\"\nadmin.port = {port}\n\
         admin.token_path = \"admin-token\"\naudit.path = \"audit.jsonl\"\nsandbox.network = \"host\""
    ));
    let builder = if wrapper.is_empty() { builder } else { builder.wrapped_by(wrapper) };
    let (results, scanner) = attack(builder, Some(port)).await;
    assert!(results.contains(&"port 401".to_owned()), "{results:?}");
    assert!(results.contains(&"page 401".to_owned()), "{results:?}");
    assert!(results.contains(&"token no".to_owned()), "{results:?}");
    assert!(audit_lines(&scanner.dir).is_empty());
    let list = store_succeeds(&scanner.dir, &["list"]).await;
    assert!(list.contains(&sha256(&png())), "{list}");
}
