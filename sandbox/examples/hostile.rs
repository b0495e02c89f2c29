//! A program in an attacker's hands, for the tests of the sandbox: one attack, named by the first argument. It exits with 0
//! if the attack got through, with 10 if it was refused (and says how), with anything else if it could not be tried.
//!
//! It does nothing unless it is contained: `no_new_privs` set and not root. What it aims at is given by the tests, which own
//! all of it. It also makes environments in which tests are run again
//! (`within`), and plays a helper that lies.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a part of the tests, and a panic is its word for an attack that could not be tried"
)]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::exit;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{ForkResult, Gid, Uid, geteuid, getppid, pause, setsid};

/// `Ok` is what the sandbox is to prevent.
type Attack = nix::Result<()>;

const REFUSED: i32 = 10;
const NOT_CONTAINED: i32 = 99;

fn main() {
    let mut arguments = std::env::args();
    if arguments.next().is_some_and(|name| name == "mcs-sandbox-helper") {
        return play_helper(arguments.next().as_deref());
    }
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["within", environment, command @ ..] = &words[..] {
        within(environment, command);
    }
    // What another of them aims at, made outside and removed there.
    match &words[..] {
        ["make-segment"] => {
            println!("{}", raw(libc::SYS_shmget, [0, 4096, 0o1666, 0, 0, 0]).unwrap());
            return;
        }
        ["remove-segment", id] => {
            return call(libc::SYS_shmctl, [number(id), i64::from(libc::IPC_RMID), 0]).unwrap();
        }
        _ => {}
    }
    if geteuid().is_root() || !prctl::get_no_new_privs().unwrap() {
        exit(NOT_CONTAINED);
    }
    match attack(&words) {
        Ok(()) => exit(0),
        Err(errno) => {
            println!("{errno}");
            exit(REFUSED);
        }
    }
}

fn attack(words: &[&str]) -> Attack {
    match words {
        ["read", path] => of(File::open(path).and_then(|mut file| file.read(&mut [0; 1]))),
        // With other jobs' names in it, beside the own.
        ["list", path] => match of_io(fs::read_dir(path))?.count() {
            0 | 1 => Err(Errno::ENOENT),
            _ => Ok(()),
        },
        ["write", path] => of(File::create_new(path)),
        ["rewrite", path] => rewrite(path),
        ["replace", path] => of(fs::remove_file(path)).and_then(|()| of(fs::write(path, "clean"))),
        ["tcp", address] => of(TcpStream::connect(address)),
        ["udp", address] => {
            of(UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", address)))
        }
        ["mptcp", address] => connect_by_mptcp(address),
        ["fastopen", address] => connect_by_sending(address),
        ["listen"] => {
            let socket = raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0])?;
            call(libc::SYS_listen, [socket, 1, 0])
        }
        ["socket", family, kind, protocol] => {
            call(libc::SYS_socket, [number(family), number(kind), number(protocol)])
        }
        ["abstract", name] => {
            of(SocketAddr::from_abstract_name(name).and_then(|it| UnixStream::connect_addr(&it)))
        }
        ["connect", path] => of(UnixStream::connect(path)),
        ["datagram", path] => {
            of(UnixDatagram::pair().and_then(|(socket, _other)| socket.send_to(b"x", path)))
        }
        ["link", path] => of(fs::hard_link(path, "link")),
        ["stat", path] => of(fs::metadata(path)),
        ["chmod", path] => {
            of(fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o640)))
        }
        ["inotify", path] => {
            let path = CString::new(*path).unwrap();
            let watch = raw(libc::SYS_inotify_init1, [0; 6])?;
            call(libc::SYS_inotify_add_watch, [watch, path.as_ptr() as i64, 0x20])
        }
        ["descriptors"] => leaked_descriptor(),
        // kill(2) says yes whoever it reached.
        ["kill-everybody"] => {
            call(libc::SYS_kill, [-1, i64::from(libc::SIGKILL), 0]).and(Err(Errno::EPERM))
        }
        ["kill-parent"] => kill_parent(),
        ["limit", what] => use_up(what),
        ["leave", fifo, how] => {
            leave(fifo, how);
            Ok(())
        }
        ["int80"] => int80(),
        _ => on_another(words).unwrap_or_else(|| of_the_kernel(words)),
    }
}

/// On a process that is named by number.
fn on_another(words: &[&str]) -> Option<Attack> {
    let [name, pid] = words else { return None };
    let pid: i64 = pid.parse().ok()?;
    let mut zeroes = [0_u64; 16];
    let buffer = zeroes.as_mut_ptr() as i64;
    Some(match *name {
        // Signal 0 asks only.
        "kill" => call(libc::SYS_kill, [pid, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), pid, 0]),
        "process_vm_readv" => {
            // From an address that nothing is at: EFAULT is one that would have been read.
            let vector = [buffer, 8];
            let vector = vector.as_ptr() as i64;
            match call6(libc::SYS_process_vm_readv, [pid, vector, 1, vector, 1, 0]) {
                Err(Errno::EFAULT) => Ok(()),
                other => other,
            }
        }
        "pidfd_getfd" => raw(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0])
            .and_then(|pidfd| call(libc::SYS_pidfd_getfd, [pidfd, 0, 0])),
        "prlimit" => {
            // Only asked for: to set it takes no more.
            call6(libc::SYS_prlimit64, [pid, 7, 0, buffer, 0, 0])
        }
        "setpriority" => call(libc::SYS_setpriority, [0, pid, 19]),
        "sched_setaffinity" => {
            zeroes[0] = 1;
            call(libc::SYS_sched_setaffinity, [pid, 8, zeroes.as_ptr() as i64])
        }
        _ => return None,
    })
}

fn of_the_kernel(words: &[&str]) -> Attack {
    let text = |text: &str| CString::new(text).unwrap().into_raw() as i64;
    let zeroes = Box::leak(Box::new([0_u64; 32])).as_mut_ptr() as i64;
    match words {
        ["unshare"] => call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0]),
        ["setns"] => {
            let own = File::open("/proc/self/ns/user").map_err(|_| Errno::ENOENT)?;
            call(libc::SYS_setns, [i64::from(own.as_raw_fd()), 0, 0])
        }
        ["clone"] => {
            let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            match raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])? {
                0 => exit(0),
                _ => Ok(()),
            }
        }
        // Too short to be right: EINVAL is one that was looked at.
        ["clone3"] => looked_at(call(libc::SYS_clone3, [zeroes, 1, 0]), Errno::EINVAL),
        ["mount"] => call6(libc::SYS_mount, [text("none"), text("/tmp"), text("tmpfs"), 0, 0, 0]),
        ["umount"] => call(libc::SYS_umount2, [text("/usr"), 2, 0]),
        ["pivot_root"] => call(libc::SYS_pivot_root, [text("."), text("."), 0]),
        ["chroot"] => call(libc::SYS_chroot, [text("."), 0, 0]),
        ["fsopen"] => call(libc::SYS_fsopen, [text("tmpfs"), 0, 0]),
        ["keyctl"] => call(libc::SYS_keyctl, [0, -3, 1]),
        ["add_key"] => call6(libc::SYS_add_key, [text("user"), text("mcs"), text("x"), 1, -1, 0]),
        ["bpf"] => call(libc::SYS_bpf, [0, zeroes, 48]),
        ["perf_event_open"] => call6(libc::SYS_perf_event_open, [zeroes, 0, -1, -1, 0, 0]),
        ["userfaultfd"] => call(libc::SYS_userfaultfd, [1, 0, 0]),
        ["io_uring_setup"] => call(libc::SYS_io_uring_setup, [1, zeroes, 0]),
        ["x32"] => call(0x4000_0000 + libc::SYS_getpid, [0; 3]),
        ["unknown"] => call(9999, [0; 3]),
        ["personality"] => call(libc::SYS_personality, [0x0040_0000, 0, 0]),
        // Not a terminal: that is found after the filter.
        ["tiocsti"] => looked_at(
            call(libc::SYS_ioctl, [0, libc::TIOCSTI.try_into().unwrap(), text("x")]),
            Errno::ENOTTY,
        ),
        ["mknod"] => {
            let mode = i64::from(libc::S_IFCHR | 0o666);
            call6(libc::SYS_mknodat, [i64::from(libc::AT_FDCWD), text("zero"), mode, 0x105, 0, 0])
        }
        ["shmat", id] => call(libc::SYS_shmat, [number(id), 0, 0]),
        ["raise-limits"] => {
            let more = [u64::MAX, u64::MAX];
            call6(libc::SYS_prlimit64, [0, 1, more.as_ptr() as i64, 0, 0, 0])
        }
        other => panic!("no such attack: {other:?}"),
    }
}

fn of<T>(done: std::io::Result<T>) -> Attack {
    of_io(done).map(drop)
}

fn of_io<T>(done: std::io::Result<T>) -> nix::Result<T> {
    done.map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

fn address(text: &str) -> libc::sockaddr_in {
    let address: std::net::SocketAddrV4 = text.parse().unwrap();
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

/// Bytes of it.
const ADDRESS_LENGTH: i64 = 16;

/// TCP in all but its number, to a peer that knows TCP alone.
fn connect_by_mptcp(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 262, 0, 0, 0])?, address(text));
    call(libc::SYS_connect, [socket, (&raw const address) as i64, ADDRESS_LENGTH])
}

/// Without connect(2).
fn connect_by_sending(text: &str) -> Attack {
    let (socket, address) = (raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0])?, address(text));
    let flags = i64::from(libc::MSG_FASTOPEN);
    let (to, length) = ((&raw const address) as i64, ADDRESS_LENGTH);
    call6(libc::SYS_sendto, [socket, c"x".as_ptr() as i64, 1, flags, to, length])
}

fn looked_at(done: Attack, sign: Errno) -> Attack {
    if done == Err(sign) { Ok(()) } else { done }
}

fn call(number: c_long, [first, second, third]: [i64; 3]) -> Attack {
    call6(number, [first, second, third, 0, 0, 0])
}

fn call6(number: c_long, arguments: [i64; 6]) -> Attack {
    raw(number, arguments).map(drop)
}

fn raw(number: c_long, arguments: [i64; 6]) -> nix::Result<i64> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    // SAFETY: pointers among the arguments are to leaked or local memory of the size that the call reads or writes.
    Errno::result(unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) })
}

/// The 32-bit entry to the kernel: getpid is 20 there.
fn int80() -> Attack {
    #[cfg(target_arch = "x86_64")]
    {
        let result: i64;
        // SAFETY: getpid reads and writes no memory.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        if result > 0 { Ok(()) } else { Err(Errno::ENOSYS) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Err(Errno::ENOSYS)
}

fn rewrite(path: &str) -> Attack {
    let _ = fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    of(File::options().write(true).open(path).and_then(|mut file| file.write_all(b"clean")))
}

fn leaked_descriptor() -> Attack {
    use nix::fcntl::{FcntlArg, fcntl};
    // SAFETY: only whether the number is in use is asked.
    let open =
        |number| fcntl(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD);
    (3..1024).find_map(|number| open(number).ok()).map(drop).ok_or(Errno::EBADF)
}

/// The first process of a pid namespace lives on; the helper would not.
fn kill_parent() -> Attack {
    let parent = getppid();
    nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGKILL)?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    if getppid() == parent { Err(Errno::EPERM) } else { Ok(()) }
}

/// Far more than the tests' limits, far less than would hurt.
fn use_up(what: &str) -> Attack {
    match what {
        "processes" => {
            for _ in 0..1000 {
                // SAFETY: there is one thread, and the child only waits to be killed.
                if let ForkResult::Child = unsafe { nix::unistd::fork() }? {
                    loop {
                        pause();
                    }
                }
            }
            Ok(())
        }
        "memory" => {
            let mut all = Vec::new();
            for _ in 0..64 {
                let mut piece: Vec<u8> = Vec::new();
                piece.try_reserve_exact(16 << 20).map_err(|_| Errno::ENOMEM)?;
                while piece.len() < 16 << 20 {
                    piece.extend_from_slice(&[1; 4096]);
                }
                all.push(piece);
            }
            Ok(())
        }
        "disk" => {
            let mut file = File::create("large").unwrap();
            (0..64).try_for_each(|_| of(file.write_all(&vec![1; 1 << 20])))
        }
        "disk-by-many" => {
            (0..64).try_for_each(|index| of(fs::write(format!("tmp/{index}"), vec![1; 1 << 20])))
        }
        "files" => (0..70_000).try_for_each(|index| of(File::create(format!("tmp/{index}")))),
        "descriptors" => {
            let mut all = Vec::new();
            (0..5000).try_for_each(|_| of(File::open("/dev/null").map(|file| all.push(file))))
        }
        other => panic!("nothing to use up: {other:?}"),
    }
}

/// Leaves processes behind that hold the FIFO open, and ends as soon as they are away.
fn leave(fifo: &str, how: &str) {
    let mut held = File::options().write(true).open(fifo).unwrap();
    let (mut told, tell) = std::io::pipe().unwrap();
    let fork = || {
        // SAFETY: there is one thread.
        unsafe { nix::unistd::fork() }.unwrap()
    };
    if let ForkResult::Child = fork() {
        drop(told);
        let _ = setsid();
        if let ForkResult::Child = fork() {
            writeln!(held, "away").unwrap();
            drop(tell);
            match how {
                "asleep" => loop {
                    pause();
                },
                // A new one for each that is killed; the last of the chain holds the FIFO.
                "churning" => loop {
                    if let ForkResult::Parent { .. } = fork() {
                        exit(0);
                    }
                },
                other => panic!("no such way: {other:?}"),
            }
        }
        exit(0);
    }
    drop(tell);
    // The end-of-file comes when whoever stays has written its line.
    told.read_to_end(&mut Vec::new()).unwrap();
}

/// A helper that says what it finds in the file `lies` beside the jobs' directory: a packet, with descriptors, for each that it
/// gets. Of itself it says that it is of the right build.
fn play_helper(asked: Option<&str>) {
    use std::io::IoSlice;
    use std::os::unix::process::CommandExt as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
    if let Some(asked) = asked {
        let own = std::env::current_exe().unwrap();
        let real = own.parent().and_then(Path::parent).unwrap().join("mcs-sandbox");
        #[expect(clippy::disallowed_methods, reason = "the real helper, for its word")]
        let mut real = std::process::Command::new(real);
        panic!("{}", real.arg0("mcs-sandbox-helper").arg(asked).exec());
    }
    let mut packet = vec![0; 1 << 16];
    let mut receive = || {
        recv(0, &mut packet, MsgFlags::empty())
            .map(|length| packet.iter().take(length).copied().collect::<Vec<_>>())
    };
    let prepare: serde_json::Value = serde_json::from_slice(&receive().unwrap()).unwrap();
    let jobs =
        Path::new(prepare.pointer("/Prepare/parent").and_then(serde_json::Value::as_str).unwrap());
    let lies = fs::read(jobs.with_file_name("lies")).unwrap();
    let lies: Vec<(Vec<u8>, usize)> = serde_json::from_slice(&lies).unwrap();
    let null = File::open("/dev/null").unwrap();
    for (index, (bytes, fds)) in lies.iter().enumerate() {
        if index > 0 && receive().is_ok_and(|packet| packet.is_empty()) {
            return;
        }
        let fds = vec![null.as_raw_fd(); *fds];
        let beside = [ControlMessage::ScmRights(&fds)];
        let beside = if fds.is_empty() { &[][..] } else { &beside[..] };
        let _ = sendmsg::<()>(0, &[IoSlice::new(bytes)], beside, MsgFlags::MSG_NOSIGNAL, None);
    }
}

/// Executes a command in an environment that has less to give.
fn within(environment: &str, command: &[&str]) -> ! {
    match environment {
        "as-it-is" => {}
        "docker" => {
            keep_dockers_capabilities();
            deny_as_dockers_profile_does();
        }
        "read-only" => {
            let is_root = geteuid().is_root();
            let mut flags = CloneFlags::CLONE_NEWNS;
            if !is_root {
                flags |= CloneFlags::CLONE_NEWUSER;
            }
            let (uid, gid) = (geteuid(), nix::unistd::getegid());
            unshare(flags).unwrap();
            if !is_root {
                name_only(uid, gid);
            }
            let whole = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            mount("none", "/", "", whole, "");
            let writable = std::env::temp_dir();
            // `struct mount_attr`: what to set, what to clear. All that is mounted read-only, but for /proc, as in containers.
            for (path, attributes) in [(c"/", [1_u64, 0, 0, 0]), (c"/proc", [0, 1, 0, 0])] {
                const RECURSIVE: i64 = 0x8000;
                let attributes = attributes.as_ptr() as i64;
                let arguments = [-100, path.as_ptr() as i64, RECURSIVE, attributes, 32, 0];
                call6(libc::SYS_mount_setattr, arguments).unwrap();
            }
            mount(
                "none",
                &writable.to_string_lossy(),
                "tmpfs",
                nix::mount::MsFlags::empty(),
                "mode=1777",
            );
        }
        "no-user-namespaces" => {
            let (uid, gid) = (geteuid(), nix::unistd::getegid());
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            name_only(uid, gid);
            // Of the new namespace alone.
            fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        }
        other => panic!("no such environment: {other:?}"),
    }
    let command: Vec<_> = command.iter().map(|word| CString::new(*word).unwrap()).collect();
    let program = command.first().expect("a command");
    panic!("{:?}", nix::unistd::execv(program, &command));
}

fn name_only(uid: Uid, gid: Gid) {
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
}

fn mount(source: &str, target: &str, kind: &str, flags: nix::mount::MsFlags, options: &str) {
    nix::mount::mount(Some(source), target, Some(kind), flags, Some(options)).unwrap();
}

/// The capabilities that Docker leaves its root.
fn keep_dockers_capabilities() {
    use caps::{CapSet, Capability, CapsHashSet};
    let kept: CapsHashSet = [
        Capability::CAP_AUDIT_WRITE,
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_MKNOD,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_NET_RAW,
        Capability::CAP_SETFCAP,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
        Capability::CAP_SETUID,
        Capability::CAP_SYS_CHROOT,
    ]
    .into();
    if geteuid().is_root() {
        for lost in caps::all().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *lost).unwrap();
        }
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
            let had = caps::read(None, set).unwrap();
            let left = had.intersection(&kept).copied().collect();
            caps::set(None, set, &left).unwrap();
        }
    }
}

/// What Docker's default profile denies who has no others.
fn deny_as_dockers_profile_does() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    const CALLS: &[c_long] = &[
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_mount_setattr,
        libc::SYS_fsopen,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
    ];
    let rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
