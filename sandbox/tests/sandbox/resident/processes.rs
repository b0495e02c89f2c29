//! Processes of a resident program, seen from outside.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mcs_sandbox::{JobLimits, JobPriority};
use nix::unistd::Pid;

use super::{LIMITS, Program};
use crate::fixture::{skip_without_root, wait_until};
use crate::hostile::{PLANS, skip_without_layers};

/// Returns the targets of a process's descriptors by number.
fn descriptors(pid: Pid) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        // A descriptor may be closed meanwhile.
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().unwrap(), target))
        })
        .collect();
    all.sort();
    all
}

/// Returns the value of a field of `/proc/PID/stat` after the command name: 0 is the state.
fn stat_field(pid: Pid, index: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(index).unwrap().to_owned()
}

/// No child has a descriptor of another job or of the program, and the program keeps none.
#[tokio::test]
async fn children_have_only_their_media_and_their_pipe() {
    if skip_without_root("children_have_only_their_media_and_their_pipe") {
        return;
    }
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "children_have_only_their_media_and_their_pipe").await {
            continue;
        }
        let program = Program::new(layers).await;
        let main = program.processes()[0];
        let before = descriptors(main);
        let limits = JobLimits { time: Duration::from_secs(3), ..LIMITS };
        let spin = || program.run_within("spin", limits);
        let observe = async {
            wait_until("all jobs run", || {
                program.processes().len() == 6
                    && program.processes().iter().all(|pid| *pid == main || is_filtered(*pid))
            })
            .await;
            let all = program.processes().into_iter().filter(|pid| *pid != main);
            let all: Vec<_> = all.map(descriptors).collect();
            // The program closes its copies after the fork.
            wait_until("the program keeps no descriptors", || descriptors(main) == before).await;
            all
        };
        let (.., all) = tokio::join!(spin(), spin(), spin(), spin(), spin(), observe);
        let mut targets = Vec::new();
        for of_child in all {
            let numbers: Vec<_> = of_child.iter().map(|(number, _)| number.as_str()).collect();
            assert_eq!(numbers, ["0", "1"], "{plan}");
            targets.extend(of_child.into_iter().map(|(_, target)| target));
        }
        let count = targets.len();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), count, "{plan}: two children have the same file");
        program.end().await;
    }
}

/// Whether a filter was installed in addition to that of the program, or the only one.
fn is_filtered(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let filters: u32 = filters.map_or(0, |filters| filters.trim().parse().unwrap());
    filters > 0
        && limits.lines().any(|line| {
            line.starts_with("Max open files") && line.split_whitespace().nth(3) == Some("0")
        })
}

#[tokio::test]
async fn limits_of_a_child() {
    let program = Program::new(&[]).await;
    let main = program.processes()[0];
    let limits = JobLimits { time: Duration::from_millis(1500), ..LIMITS };
    let (_, (child, own)) = tokio::join!(program.run_within("spin", limits), async {
        let child = || program.processes().into_iter().find(|pid| *pid != main);
        wait_until("the job runs", || child().is_some_and(is_filtered)).await;
        let limits = |pid: Pid| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        (limits(child().unwrap()), limits(main))
    });
    let value = |limits: &str, name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let mut values = line.split_whitespace().map(str::to_owned);
        (values.next().unwrap(), values.next().unwrap())
    };
    let both = |value: &str| (value.to_owned(), value.to_owned());
    for name in ["Max open files", "Max file size", "Max processes"] {
        assert_eq!(value(&child, name), both("0"), "{name}");
    }
    assert_eq!(value(&child, "Max core file size"), both("1"));
    assert_eq!(value(&child, "Max cpu time"), ("2".to_owned(), "3".to_owned()));
    let (memory, hard) = value(&child, "Max address space");
    assert_eq!(memory, hard);
    let memory: u64 = memory.parse().unwrap();
    assert!((64 << 20..1 << 30).contains(&memory), "{memory}");
    assert_eq!(value(&own, "Max cpu time").0, "unlimited");
    program.end().await;
}

/// `SCHED_IDLE` is 5. Field 41 of `proc_pid_stat(5)`.
#[tokio::test]
async fn demotes_the_child_of_its_job_only() {
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "demotes_the_child_of_its_job_only").await {
            continue;
        }
        let program = Program::new(layers).await;
        let main = program.processes()[0];
        let limits = JobLimits { time: Duration::from_secs(2), ..LIMITS };
        let priority = JobPriority::new();
        let demoted = program.resident.evaluate(program.media(b"spin"), 7, limits, &priority);
        let (_, _, ()) = tokio::join!(demoted, program.run_within("spin", limits), async {
            wait_until("both jobs run", || program.processes().len() == 3).await;
            priority.demote();
            let idle = || {
                let all = program.processes().into_iter();
                all.filter(|pid| stat_field(*pid, 38) == "5").collect::<Vec<_>>()
            };
            wait_until("one child is demoted", || !idle().is_empty()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(idle().len(), 1, "{plan}");
            assert_ne!(idle(), [main], "{plan}");
        });
        program.end().await;
    }
}
