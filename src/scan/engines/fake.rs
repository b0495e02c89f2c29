//! Servers on loopback that do what a test says, and the faults that any server may have.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinHandle,
};

use super::{Bounds, Otherwise};

/// What is far less than a time limit, and still long for loopback.
pub(super) const MOMENT: Duration = Duration::from_millis(5);

/// A server; gone when dropped.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Serves each connection so.
    pub(super) async fn serving<T>(serve: impl Fn(TcpStream) -> T + Send + 'static) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), serve)
    }

    pub(super) fn on<T>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> T + Send + 'static,
    ) -> Self
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream));
            }
        });
        Self { address, connections, task }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ends it, with all its connections; gives its address, where nobody listens then, nor anybody else
    /// will as long as the socket is held.
    pub(super) async fn dies(mut self) -> (SocketAddr, TcpSocket) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind(self.address).unwrap();
        (self.address, held)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How an answer comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// As it is, and the connection ends.
    None,
    /// Half of it.
    Cut,
    /// Byte by byte, each as late as loopback is quick; for ever.
    Drip,
    /// Never.
    Silent,
    /// Twice.
    Twice,
}

/// Answers with these bytes, in this way.
pub(super) async fn answer(stream: &mut TcpStream, bytes: &[u8], fault: Fault) {
    let said = match fault {
        Fault::None => stream.write_all(bytes).await,
        Fault::Cut => stream.write_all(&bytes[..bytes.len() / 2]).await,
        Fault::Drip => loop {
            if stream.write_all(&bytes[..1]).await.is_err() {
                return;
            }
            tokio::time::sleep(MOMENT).await;
        },
        Fault::Silent => std::future::pending().await,
        Fault::Twice => stream.write_all(&[bytes, bytes].concat()).await,
    };
    // Who has hung up needs no answer.
    let _ = said;
}

/// Reads until these bytes have come, or the connection ended; gives all that came.
pub(super) async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut came = Vec::new();
    while !came.ends_with(end) {
        match stream.read_buf(&mut came).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
    }
    came
}

/// Closes only when the other side has: what was not read would make a reset of it, which may overtake
/// the answer.
pub(super) async fn linger(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
}

/// None that matter.
pub(super) const BOUNDS: Bounds =
    Bounds { max_size: None, larger: Otherwise::Fail, on_failure: Otherwise::Fail };

/// Long enough for anything that works.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// For what never comes.
pub(super) const IMPATIENCE: Duration = Duration::from_millis(200);

/// Tries each input that is kept for this fuzz target.
pub(in crate::scan) fn each_of_corpus(target: &str, attempt: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut tried = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // The test's output tells which it was that failed.
        println!("{}", path.display());
        attempt(&fs::read(path).unwrap());
        tried += 1;
    }
    assert!(tried > 10, "{tried} inputs");
}
