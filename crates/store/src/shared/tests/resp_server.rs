//! A small server of the protocol RESP2, whose replies a test chooses.

use std::{collections::HashMap, sync::Arc};

use mcs_testing::FakeServer;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpStream, tcp::OwnedReadHalf},
};

use super::*;
use crate::{SharedSettings, StoreServers};

/// A command with its arguments.
pub(super) type Arguments = Vec<Vec<u8>>;

/// Returns the bytes to send in reply to a command; without any, the connection is closed.
pub(super) type ReplyFunction = dyn Fn(&Arguments) -> Vec<u8> + Send + Sync;

/// Starts a server with these replies.
pub(super) async fn start(reply: Arc<ReplyFunction>) -> FakeServer {
    FakeServer::start(move |stream| serve(stream, Arc::clone(&reply))).await
}

async fn serve(stream: TcpStream, reply: Arc<ReplyFunction>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(arguments) = read_command(&mut reader).await {
        let bytes = reply(&arguments);
        if bytes.is_empty() || writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_command(reader: &mut BufReader<OwnedReadHalf>) -> Option<Arguments> {
    let count = read_number(reader, '*').await?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        let mut bytes = vec![0; read_number(reader, '$').await? + 2];
        reader.read_exact(&mut bytes).await.ok()?;
        bytes.truncate(bytes.len() - 2);
        arguments.push(bytes);
    }
    Some(arguments)
}

async fn read_number(reader: &mut BufReader<OwnedReadHalf>, start: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).await.ok()?;
    line.strip_prefix(start)?.trim_end().parse().ok()
}

pub(super) fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        None => b"$-1\r\n".to_vec(),
    }
}

pub(super) fn array(values: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", values.len()).into_bytes(), values.concat()].concat()
}

/// Strings of a server, with the replies that an honest server gives.
#[derive(Default)]
pub(super) struct Strings(pub(super) Mutex<HashMap<Vec<u8>, Vec<u8>>>);

impl Strings {
    pub(super) fn reply(&self, arguments: &Arguments) -> Vec<u8> {
        let mut strings = self.0.lock();
        match &*arguments[0] {
            b"SET" => {
                strings.insert(arguments[1].clone(), arguments[2].clone());
                b"+OK\r\n".to_vec()
            }
            b"MGET" => {
                let values = arguments[1..].iter().map(|key| bulk(strings.get(key).map(|v| &**v)));
                array(&values.collect::<Vec<_>>())
            }
            b"DEL" => {
                strings.remove(&arguments[1]);
                b":1\r\n".to_vec()
            }
            b"XREAD" => b"*-1\r\n".to_vec(),
            b"XRANGE" | b"XREVRANGE" => b"*0\r\n".to_vec(),
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }
}

/// Starts a store that uses a server.
pub(super) fn start_store(url: &str, timeout: Duration) -> (SharedStore, StoreEvents) {
    let servers = StoreServers::parse(&[url.to_owned()], None, None).unwrap();
    let settings = SharedSettings { timeout, ..SharedSettings::new(servers) };
    SharedStore::start(settings, secret()).unwrap()
}
