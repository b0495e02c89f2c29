//! A resident program whose children are hostile: the media of a job is a list of words that selects the attack. A child
//! whose attack succeeds returns `succeeded`; one whose attack fails returns the error. Most attacks end the child.

use std::fs::File;
use std::hint::black_box;
use std::process::{abort, exit};

use nix::libc::{self, c_int};

use crate::calls::raw;
use crate::kernel::int80;

/// Descriptors that are tried.
const DESCRIPTORS: std::ops::Range<i64> = 0..1024;

/// Serves jobs until the server closes the socket.
pub(crate) fn serve() -> ! {
    let load = |data: Vec<File>| {
        let name = mcs_sandbox::map_sealed(data.first().unwrap())?;
        Ok(move |media: &mcs_sandbox::JobMedia| {
            Ok(answer(name, media.argument(), &media.read_all()?))
        })
    };
    match mcs_sandbox::serve_resident(load) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(2);
        }
    }
}

fn answer(name: &[u8], argument: u32, media: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(media);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match &words[..] {
        ["name"] => name.into(),
        ["argument"] => argument.to_string().into(),
        ["size"] => media.len().to_string().into(),
        ["result", length] => vec![b'x'; length.parse().unwrap()],
        ["pid"] => raw_result(libc::SYS_getpid, [0; 6]),
        ["compute"] => compute().into(),
        ["call", number, arguments @ ..] => {
            let mut all = [0; 6];
            for (argument, word) in all.iter_mut().zip(arguments) {
                *argument = word.parse().unwrap();
            }
            raw_result(number.parse().unwrap(), all)
        }
        // Any other attack of this program.
        ["attack", words @ ..] => match crate::attack(words) {
            Ok(()) => b"succeeded".into(),
            Err(errno) => errno.to_string().into(),
        },
        ["write-all", record] => write_all(record),
        ["read-all"] => read_all(),
        [attack] => end(attack, "0"),
        [attack, job] => end(attack, job),
        // Long media, for tests of memory.
        _ => b"unknown".into(),
    }
}

fn raw_result(number: libc::c_long, arguments: [i64; 6]) -> Vec<u8> {
    match raw(number, arguments) {
        Ok(_) => b"succeeded".into(),
        Err(errno) => errno.to_string().into(),
    }
}

/// Bytes that are a valid record of a job without a finding, if the job has this number.
fn forged(job: &str) -> Vec<u8> {
    let job: u64 = job.parse().unwrap();
    let result = b"clean";
    let mut record = b"mcsr".to_vec();
    record.extend(5_u32.to_le_bytes());
    record.extend(job.to_le_bytes());
    record.extend(result);
    record
}

fn write_to(descriptor: i64, bytes: &[u8]) -> nix::Result<i64> {
    let length = i64::try_from(bytes.len()).unwrap();
    raw(libc::SYS_write, [descriptor, bytes.as_ptr() as i64, length, 0, 0, 0])
}

/// Writes a record to every descriptor, downwards, so that the own pipe is not the first one.
fn write_all(job: &str) -> Vec<u8> {
    let record = forged(job);
    let written = DESCRIPTORS.rev().filter(|descriptor| write_to(*descriptor, &record).is_ok());
    format!("{} written", written.count()).into()
}

/// Reads from every descriptor. The media is the only one that can be read.
fn read_all() -> Vec<u8> {
    let mut byte = 0_u8;
    let read = DESCRIPTORS.filter(|descriptor| {
        raw(libc::SYS_read, [*descriptor, (&raw mut byte) as i64, 1, 0, 0, 0]).is_ok()
    });
    format!("{} read", read.count()).into()
}

/// What decoders do: large allocations that grow, threads' locals, hash tables, a caught panic.
fn compute() -> String {
    let mut bytes = Vec::new();
    for index in 0_u64..(2 << 20) {
        bytes.extend_from_slice(&index.to_le_bytes());
    }
    let mut table = std::collections::HashMap::new();
    for index in 0..100_000 {
        table.insert(index, vec![0_u8; 100]);
    }
    black_box((&bytes, &table));
    drop((bytes, table));
    let caught = std::panic::catch_unwind(|| {
        let none: Option<u8> = black_box(None);
        none.unwrap()
    });
    let started = std::time::Instant::now();
    black_box(started.elapsed());
    format!("panicked: {}", caught.is_err())
}

/// Attacks that end the child, or that must.
fn end(attack: &str, job: &str) -> Vec<u8> {
    let page = vec![b'x'; 4096];
    match attack {
        "spin" => loop {
            std::hint::spin_loop();
        },
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
                black_box(&all);
            }
        }
        "stack" => recurse(0).to_string().into(),
        "panic" => panic!("hostile"),
        "abort" => abort(),
        "segv" => {
            // SAFETY: intended to end the process.
            unsafe { *black_box(std::ptr::without_provenance_mut::<u8>(8)) = 1 };
            b"succeeded".into()
        }
        "exit-0" => exit_at_once(0),
        "exit-7" => exit_at_once(7),
        "flood" => {
            for _ in 0..1000 {
                let _ = write_to(1, &page);
            }
            exit_at_once(0)
        }
        "write-forever" => loop {
            let _ = write_to(1, &page);
        },
        "short" => {
            let _ = write_to(1, b"mcsr");
            exit_at_once(0)
        }
        // The first record is valid: the second one follows when this function returns.
        "double" => {
            let _ = write_to(1, &forged(job));
            b"clean".into()
        }
        "record-then-abort" => {
            let _ = write_to(1, &forged(job));
            abort()
        }
        "too-long" => vec![b'x'; mcs_sandbox::MAX_RESULT + 1],
        "int80" => format!("{:?}", int80()).into(),
        "open" => format!("{:?}", File::open("/etc/passwd").is_ok()).into(),
        "print" => {
            println!("clean");
            b"succeeded".into()
        }
        other => panic!("unknown attack: {other}"),
    }
}

fn exit_at_once(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

#[expect(unconditional_recursion, reason = "exhausts the stack")]
fn recurse(depth: u64) -> u64 {
    let page = black_box([depth; 512]);
    recurse(depth + 1) + page.iter().sum::<u64>()
}
