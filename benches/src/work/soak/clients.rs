//! Who asks: for what nobody has seen, plain, encrypted and large; for what is known; and who hangs up. Each looks at what it
//! gets: the right bytes, the right verdict, or a 503 that says when to come back.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use super::super::API;
use crate::{
    files::Media,
    load::{Answer, Connection, get, post},
};

const PLAIN: usize = 288;
const ENCRYPTED: usize = 64;
const LARGE: usize = 8;
/// Who want what nobody has seen, each one thing at a time.
pub(super) const ASKING: usize = PLAIN + ENCRYPTED + LARGE;
/// While they wait, or while a large media is being sent to them.
const HANGING_UP: usize = 8;
const PATIENCE: Duration = Duration::from_millis(100);
const KNOWN: usize = 16;
const KNOWN_PAUSE: Duration = Duration::from_millis(20);
/// Until who was refused comes back: far sooner than told.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

/// What they ask for.
pub(super) struct SoakMedia {
    /// Where the files lie.
    pub(super) place: PathBuf,
    pub(super) plain: Vec<Media>,
    pub(super) encrypted: Vec<Media>,
    pub(super) large: Vec<Media>,
    pub(super) known: Vec<Media>,
}

/// Whether the one at this place is: one in ten.
pub(super) fn infected(index: usize) -> bool {
    index % 20 < 2
}

/// Of the key that the one at this place is encrypted with.
pub(super) fn seed(index: usize) -> u8 {
    u8::try_from(index % 251).unwrap()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Plain,
    Encrypted,
    Large,
    Known,
}

/// An answer, right as such.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Seconds since it began.
    pub(super) at: f64,
    pub(super) kind: Kind,
    pub(super) refused: bool,
    pub(super) seconds: f64,
}

impl Seen {
    pub(super) fn is_within(&self, begin: f64, seconds: f64) -> bool {
        (begin..begin + seconds).contains(&self.at)
    }
}

#[derive(Clone, Default)]
pub(super) struct Wrong {
    pub(super) count: usize,
    pub(super) examples: Vec<String>,
}

/// What has come.
pub(super) struct Log {
    begin: Instant,
    time: Duration,
    seen: Mutex<Vec<Seen>>,
    wrong: Mutex<Wrong>,
    hung_up: AtomicUsize,
    turns: [AtomicUsize; 4],
}

impl Log {
    /// Of a load for so long, from now on.
    pub(super) fn new(time: Duration) -> Self {
        let begin = Instant::now();
        let (seen, wrong) = (Mutex::default(), Mutex::default());
        Self { begin, time, seen, wrong, hung_up: AtomicUsize::new(0), turns: Default::default() }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn wrong(&self) -> Wrong {
        self.wrong.lock().unwrap().clone()
    }

    pub(super) fn hung_up(&self) -> usize {
        self.hung_up.load(Ordering::Relaxed)
    }

    /// Seconds of those that had a place, within this time.
    pub(super) fn accepted(&self, begin: f64, seconds: f64) -> Vec<f64> {
        let seen = self.seen.lock().unwrap();
        let within = seen
            .iter()
            .filter(|it| !it.refused && it.kind != Kind::Known && it.is_within(begin, seconds));
        within.map(|it| it.seconds).collect()
    }

    fn over(&self) -> bool {
        self.begin.elapsed() >= self.time
    }

    /// The next of this kind; round and round.
    fn turn<'media>(&self, kind: Kind, media: &'media [Media]) -> (usize, &'media Media) {
        let index = self.turns[kind as usize].fetch_add(1, Ordering::Relaxed) % media.len();
        (index, &media[index])
    }

    /// Whether it is a refusal.
    fn take(&self, kind: Kind, begun: Instant, answer: &Answer, right: bool) -> bool {
        let refused = answer.status == 503
            && answer.header("retry-after").is_some_and(|it| it.parse::<u32>().is_ok())
            && answer.says("\"reason\":\"M_UNKNOWN\"");
        if right || refused {
            let at = self.begin.elapsed().as_secs_f64();
            let seconds = begun.elapsed().as_secs_f64();
            self.seen.lock().unwrap().push(Seen { at, kind, refused, seconds });
        } else {
            let mut wrong = self.wrong.lock().unwrap();
            wrong.count += 1;
            if wrong.examples.len() < 10 {
                let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
                wrong.examples.push(format!("{kind:?}: {}{body}", answer.head));
            }
        }
        refused
    }
}

/// All of them, until the time is over and each has its answer.
pub(super) async fn run(to: SocketAddr, media: &SoakMedia, log: &Log) {
    let all = (0..ASKING).map(|number| match number {
        0..PLAIN => Kind::Plain,
        number if number < PLAIN + ENCRYPTED => Kind::Encrypted,
        _ => Kind::Large,
    });
    let asking = join_all(all.map(|kind| ask(to, media, log, kind)));
    let knowing = join_all((0..KNOWN).map(|_| ask(to, media, log, Kind::Known)));
    let hanging_up = join_all((0..HANGING_UP).map(|number| hang_up(to, media, log, number)));
    tokio::join!(asking, knowing, hanging_up);
}

async fn ask(to: SocketAddr, media: &SoakMedia, log: &Log, kind: Kind) {
    let mut connection = Connection::open(to).await;
    let (mut request, mut index, mut file) = next(media, log, kind);
    while !log.over() {
        let begun = Instant::now();
        let answer = connection.answer(&request.text).await;
        let right = match request.wants {
            Wants::Verdict => {
                let verdict = if infected(index) { "\"clean\":false" } else { "\"clean\":true" };
                answer.status == 200 && answer.says(verdict)
            }
            Wants::Refusal => answer.status == 403 && answer.says("MCS_MEDIA_NOT_CLEAN"),
            Wants::Bytes => {
                answer.status == 200
                    && answer.body == fs::read(media.place.join(&file.name)).unwrap()
            }
        };
        if log.take(kind, begun, &answer, right) {
            // For the same again.
            sleep(PAUSE).await;
            continue;
        }
        if kind == Kind::Known {
            sleep(KNOWN_PAUSE).await;
        }
        (request, index, file) = next(media, log, kind);
    }
}

enum Wants {
    Verdict,
    Bytes,
    /// In place of the bytes.
    Refusal,
}

struct Request {
    text: Vec<u8>,
    wants: Wants,
}

fn next<'media>(
    media: &'media SoakMedia,
    log: &Log,
    kind: Kind,
) -> (Request, usize, &'media Media) {
    let files = match kind {
        Kind::Plain => &media.plain,
        Kind::Encrypted => &media.encrypted,
        Kind::Large => &media.large,
        Kind::Known => &media.known,
    };
    let (index, file) = log.turn(kind, files);
    let place = file.place();
    let (text, wants) = match kind {
        Kind::Plain => (get(&format!("{API}/scan/{place}")), Wants::Verdict),
        Kind::Encrypted if index.is_multiple_of(2) => {
            (post(&format!("{API}/scan_encrypted"), &file.body(seed(index))), Wants::Verdict)
        }
        Kind::Encrypted => {
            let wants = if infected(index) { Wants::Refusal } else { Wants::Bytes };
            (post(&format!("{API}/download_encrypted"), &file.body(seed(index))), wants)
        }
        Kind::Large | Kind::Known => (get(&format!("{API}/download/{place}")), Wants::Bytes),
    };
    (Request { text, wants }, index, file)
}

/// Some while they wait, some at the first bytes of a large media.
async fn hang_up(to: SocketAddr, media: &SoakMedia, log: &Log, number: usize) {
    while !log.over() {
        let mut connection = Connection::open(to).await;
        if number.is_multiple_of(2) {
            let (request, ..) = next(media, log, Kind::Plain);
            let _answered = timeout(PATIENCE, connection.begin(&request.text)).await;
        } else {
            let (request, ..) = next(media, log, Kind::Large);
            connection.begin(&request.text).await;
        }
        drop(connection);
        log.hung_up.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
}
