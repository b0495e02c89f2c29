//! Processes killed while they write.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Stdio},
};

use super::*;

/// Variable with the directory of the store, for the killed process.
const DIRECTORY: &str = "STORE_KILL_DIRECTORY";

/// Variable with the number of the first record.
const FIRST: &str = "STORE_KILL_FIRST";

/// Number of records that the killed process writes at a time.
const CONCURRENT: u64 = 8;

/// Number of kills. `STORE_KILLS` replaces it.
const KILLS: u64 = 20;

fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.into_string().unwrap())
}

/// Runs in the killed process: writes records without end, and prints the number of each acknowledged one.
#[test]
fn killed_process() {
    let Some(directory) = variable(DIRECTORY) else { return };
    let path = PathBuf::from(directory).join("store.db");
    let (store, _) = FileStore::open(&path, secret(), StoreFixture::new().settings()).unwrap();
    let mut number = variable(FIRST).unwrap().parse().unwrap();
    loop {
        let writes: Vec<_> = (number..number + CONCURRENT)
            .map(|number| {
                let name = key(RecordKind::NotClean, number).name;
                (number, store.put_not_clean(name, EXPIRY, &value(number)).unwrap())
            })
            .collect();
        // Ordinary records share the transactions, and are not counted on.
        put(&store, RecordKind::Media, number);
        for (number, write) in writes {
            wait(write).unwrap();
            let mut stdout = std::io::stdout();
            writeln!(stdout, "written {number}").unwrap();
            stdout.flush().unwrap();
        }
        number += CONCURRENT;
    }
}

fn start(fixture: &StoreFixture, first: u64) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "runs a test of this program as a process to kill"
    )]
    let mut command = std::process::Command::new(env::current_exe().unwrap());
    command.args(["--exact", "tests::kills::killed_process", "--nocapture"]);
    command.env(DIRECTORY, fixture.directory.path()).env(FIRST, first.to_string());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// Returns a number below the bound.
fn random(bound: u64) -> u64 {
    getrandom::u64().unwrap() % bound
}

#[test]
fn acknowledged_records_survive_kills() {
    let kills = variable("STORE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let fixture = StoreFixture::new();
    let mut written = Vec::new();
    for kill in 0..kills {
        let mut child = start(&fixture, kill * 1_000_000);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some are killed while they open the store, the others after some records and at any moment of the next ones.
        let mut until_kill = random(60);
        if until_kill == 0 {
            child.kill().unwrap();
        }
        for line in lines {
            // The harness prints on the same line before the first record.
            let line = line.unwrap();
            let Some((_, number)) = line.rsplit_once("written ") else { continue };
            written.push(number.parse::<u64>().unwrap());
            until_kill = until_kill.saturating_sub(1);
            if until_kill == 0 {
                thread::sleep(Duration::from_micros(random(3000)));
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let (store, report) = fixture.try_open().unwrap();
        assert_eq!(report.set_aside, None);
        for &number in &written {
            let found = get(&store, key(RecordKind::NotClean, number));
            assert_eq!(found, Some(value(number)), "record {number}, kill {kill}");
        }
        let counters = store.counters();
        assert_eq!((counters.bad_records, counters.replacements), (0, 0));
    }
    assert!(written.len() as u64 > kills, "{}", written.len());
    println!("{kills} kills, {} records", written.len());
}
