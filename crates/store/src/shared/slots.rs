//! Hash slots of a cluster (Redis cluster specification).

use redis::Value;

use super::servers::ServerAddress;

/// Number of hash slots.
const SLOTS: u16 = 16384;

/// Maximum number of nodes with slots. Larger clusters are rejected.
const MAX_NODES: usize = 1000;

/// Which node has which slots.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct SlotMap {
    /// Last slot of each range, ascending, with the first one and the node.
    ranges: Vec<(u16, u16, ServerAddress)>,
}

impl SlotMap {
    /// Parses the reply to CLUSTER SLOTS. `asked`: the node that replied, whose host is left out in some replies.
    pub(crate) fn parse(reply: &Value, asked: &ServerAddress) -> Option<Self> {
        let Value::Array(entries) = reply else { return None };
        let mut ranges = Vec::with_capacity(entries.len());
        for entry in entries {
            let Value::Array(fields) = entry else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &**fields else {
                return None;
            };
            let [host, Value::Int(port), ..] = &**primary else { return None };
            let host = match host {
                Value::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
                Value::BulkString(_) | Value::Nil => &asked.host,
                _ => return None,
            };
            let address = ServerAddress::new(host, u16::try_from(*port).ok()?)?;
            let [first, last] = [*first, *last].map(u16::try_from);
            let (first, last) = (first.ok()?, last.ok()?);
            if first > last || last >= SLOTS {
                return None;
            }
            ranges.push((last, first, address));
        }
        ranges.sort_unstable();
        let map = Self { ranges };
        (!map.ranges.is_empty() && map.nodes().len() <= MAX_NODES).then_some(map)
    }

    /// Returns the node of a key, or `None` if no node has its slot.
    pub(crate) fn node(&self, key: &[u8]) -> Option<&ServerAddress> {
        let slot = key_slot(key);
        let index = self.ranges.partition_point(|(last, _, _)| *last < slot);
        let (_, first, address) = self.ranges.get(index)?;
        (*first <= slot).then_some(address)
    }

    /// Returns the nodes with slots, each once.
    pub(crate) fn nodes(&self) -> Vec<ServerAddress> {
        let mut nodes: Vec<_> = self.ranges.iter().map(|(_, _, address)| address.clone()).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// Returns the slot of a key: of the part between the first braces, if there is one.
pub(crate) fn key_slot(key: &[u8]) -> u16 {
    let position = |bytes: &[u8], byte| bytes.iter().position(|other| *other == byte);
    let tag = position(key, b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        rest.get(..position(rest, b'}')?).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}
