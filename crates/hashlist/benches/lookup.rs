//! Measures preparing, loading and lookups of hash lists with random entries. Prints a table. Durations are CPU time, so
//! that other programs on the machine affect them less.
//!
//! `cargo bench -p mcs-hashlist [-- ENTRIES]`, by default with 10 million block entries.

use std::{
    env, fs, hint,
    io::{self, BufWriter, Write as _},
    time::Duration,
};

use mcs_hashlist::{Digests, FileDigest, HashEntry, HashListBuilder, HashLists, ListAction};

const LOOKUPS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = env::args().skip(1).find(|argument| argument != "--bench");
    let count: u64 = argument.map_or(Ok(10_000_000), |argument| argument.parse())?;
    // The second half of the numbers belongs to files that are in no list.
    measure("SHA-256", count, |number| entry(FileDigest::Sha256(random(number)), None))?;
    measure("a third each SHA-256, SHA-1, MD5 with size", count, |number| match number % 3 {
        0 => entry(FileDigest::Sha256(random(number)), None),
        1 => entry(FileDigest::Sha1(random(number)), None),
        _ => entry(FileDigest::Md5(random(number)), Some(number)),
    })?;
    measure_file(count.min(1_000_000))?;
    Ok(())
}

/// CPU time of this thread.
struct CpuTimer {
    start: Duration,
}

impl CpuTimer {
    fn start() -> io::Result<Self> {
        Ok(Self { start: Self::now()? })
    }

    fn elapsed(&self) -> io::Result<Duration> {
        Ok(Self::now()?.saturating_sub(self.start))
    }

    /// The first number is nanoseconds: sched-stats.rst in the documentation of the kernel.
    fn now() -> io::Result<Duration> {
        let statistics = fs::read_to_string("/proc/thread-self/schedstat")?;
        let nanoseconds = statistics.split_whitespace().next().and_then(|field| field.parse().ok());
        nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::Error::other("schedstat is empty"))
    }
}

fn measure(
    title: &str,
    count: u64,
    entry: impl Fn(u64) -> HashEntry<'static>,
) -> Result<(), Box<dyn std::error::Error>> {
    println!("{count} block entries, {title}");
    let start = CpuTimer::start()?;
    let mut builder = HashListBuilder::new();
    builder.add_entries(ListAction::Block, "bench", (0..count).map(entry))?;
    println!("  collect: {:?}", start.elapsed()?);
    let start = CpuTimer::start()?;
    let prepared = builder.prepare()?;
    println!("  sort and encode: {:?}", start.elapsed()?);
    println!("  size: {:.1} MiB", mebibytes(prepared.len() as u64));
    println!("  peak memory of the process: {:.1} MiB", mebibytes(peak_memory()?));
    let start = CpuTimer::start()?;
    let lists = HashLists::from_prepared(prepared)?;
    println!("  load, with checksums: {:?}", start.elapsed()?);
    for (name, offset) in [("listed", 0), ("not listed", count)] {
        let mut found = 0_u64;
        let start = CpuTimer::start()?;
        for lookup in 0..LOOKUPS {
            // Multiples of a prime, so that neighbours are not in order.
            let number = lookup.wrapping_mul(2_654_435_761) % count.max(1) + offset;
            let digests = Digests {
                sha256: random(number),
                sha1: Some(random(number)),
                md5: Some(random(number)),
                size: number,
            };
            found += u64::from(hint::black_box(lists.lookup(&digests)).is_some());
        }
        let duration = start.elapsed()? / u32::try_from(LOOKUPS)?;
        println!("  lookup, {name}: {duration:?} ({found} of {LOOKUPS} found)");
    }
    Ok(())
}

fn measure_file(count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("list.txt");
    let mut file = BufWriter::new(fs::File::create(&path)?);
    for number in 0..count {
        for byte in random::<32>(number) {
            write!(file, "{byte:02x}")?;
        }
        writeln!(file, "  Test.Malware.Name-{number}")?;
    }
    file.into_inner()?.sync_all()?;
    let start = CpuTimer::start()?;
    let mut builder = HashListBuilder::new();
    builder.add_file(ListAction::Block, &path)?;
    println!("text list with {count} lines: read in {:?}", start.elapsed()?);
    Ok(())
}

fn entry(digest: FileDigest, size: Option<u64>) -> HashEntry<'static> {
    HashEntry { digest, size, name: "".into() }
}

/// Returns pseudo-random bytes for a number (splitmix64).
fn random<const N: usize>(number: u64) -> [u8; N] {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        chunk.iter_mut().zip(word.to_le_bytes()).for_each(|(target, byte)| *target = byte);
    }
    bytes
}

/// Returns the largest resident size of this process in bytes.
fn peak_memory() -> Result<u64, Box<dyn std::error::Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).ok_or("no value")?.parse()?;
    Ok(kibibytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "displayed with one decimal place")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
