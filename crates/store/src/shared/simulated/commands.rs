//! Commands of a simulated server.

use std::collections::BTreeMap;

use redis::{Value, parse_redis_value};

use super::keyspace::{KeyspaceSnapshot, SimulatedValue, StreamId};

/// State that commands use.
pub(super) struct CommandContext<'a> {
    pub(super) keys: &'a mut KeyspaceSnapshot,
    /// Milliseconds since the epoch.
    pub(super) now: u64,
}

/// Returns an error reply.
pub(super) fn error(text: &str) -> Value {
    parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap_or(Value::Nil)
}

fn wrong_type() -> Value {
    error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

/// Returns whether a command changes keys and may need memory.
pub(super) fn needs_memory(name: &[u8]) -> bool {
    matches!(name, b"SET" | b"HSET" | b"XADD" | b"ZADD")
}

fn bulk(bytes: &[u8]) -> Value {
    Value::BulkString(bytes.to_owned())
}

fn count(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn parse(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn id_text((time, sequence): StreamId) -> Value {
    bulk(format!("{time}-{sequence}").as_bytes())
}

fn parse_id(text: &[u8]) -> Option<StreamId> {
    let (time, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some((time.parse().ok()?, sequence.parse().ok()?))
}

impl CommandContext<'_> {
    /// Executes a command. Those that the store does not use, and arguments that it does not give, are errors.
    pub(super) fn execute(&mut self, arguments: &[&[u8]]) -> Value {
        self.keys.expire(self.now);
        let [name, rest @ ..] = arguments else { return error("ERR empty command") };
        let reply = match (&**name, rest) {
            (b"PING", []) => Some(Value::SimpleString("PONG".to_owned())),
            (b"TIME", []) => Some(self.time()),
            (b"GET", [key]) => Some(self.get(key)),
            (b"MGET", keys) => Some(Value::Array(keys.iter().map(|key| self.text(key)).collect())),
            (b"SET", [key, value, options @ ..]) => self.set(key, value, options),
            (b"DEL", keys) => {
                let removed = keys.iter().filter(|key| self.keys.0.remove(**key).is_some());
                Some(count(removed.count()))
            }
            (b"EXPIRE", [key, seconds]) => self.expire(key, seconds),
            (b"HSET", [key, field, value]) => Some(self.hash_set(key, field, value)),
            (b"HGETALL", [key]) => Some(self.hash_all(key)),
            (b"HLEN", [key]) => Some(self.hash_length(key)),
            (b"XADD", [key, b"MAXLEN", b"~", max, b"*", fields @ ..]) => {
                parse(max).map(|max| self.stream_add(key, max, fields))
            }
            (b"XREAD", [b"COUNT", max, b"STREAMS", key, after]) => {
                self.stream_read(key, max, after)
            }
            (b"XRANGE", [key, b"-", b"+", b"COUNT", max]) => self.stream_range(key, max, false),
            (b"XREVRANGE", [key, b"+", b"-", b"COUNT", max]) => self.stream_range(key, max, true),
            (b"ZADD", [key, score, member]) => self.sorted_add(key, score, member),
            (b"ZREMRANGEBYSCORE", [key, b"-inf", before]) => self.sorted_remove(key, before),
            (b"ZRANGEBYSCORE", [key, start, b"+inf", b"LIMIT", b"0", max]) => {
                self.sorted_range(key, start, max, false)
            }
            (b"ZRANGEBYSCORE", [key, start, b"+inf", b"WITHSCORES", b"LIMIT", b"0", max]) => {
                self.sorted_range(key, start, max, true)
            }
            (b"ZCARD", [key]) => Some(self.sorted_length(key)),
            (b"ZREM", [key, member]) => Some(self.sorted_delete(key, member)),
            (b"EXISTS", [key]) => Some(count(usize::from(self.keys.0.contains_key(*key)))),
            (b"SCAN", [cursor, b"MATCH", pattern, b"COUNT", max]) => {
                self.scan(cursor, pattern, max)
            }
            _ => None,
        };
        reply.unwrap_or_else(|| error("ERR unknown command or arguments"))
    }

    fn time(&self) -> Value {
        let (seconds, rest) = (self.now / 1000, self.now % 1000 * 1000);
        Value::Array(vec![bulk(seconds.to_string().as_bytes()), bulk(rest.to_string().as_bytes())])
    }

    fn text(&self, key: &[u8]) -> Value {
        self.keys.text(key).map_or(Value::Nil, |text| bulk(text))
    }

    fn get(&self, key: &[u8]) -> Value {
        match self.keys.0.get(key) {
            Some(entry) if !matches!(entry.value, SimulatedValue::Text(_)) => wrong_type(),
            _ => self.text(key),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[&[u8]]) -> Option<Value> {
        let mut options = options.iter();
        let mut expires = None;
        let exists = self.keys.0.contains_key(key);
        let mut is_allowed = true;
        while let Some(option) = options.next() {
            match &**option {
                b"NX" => is_allowed &= !exists,
                b"XX" => is_allowed &= exists,
                b"PX" => expires = Some(self.now + parse(options.next()?)?),
                b"EX" => expires = Some(self.now + parse(options.next()?)? * 1000),
                _ => return None,
            }
        }
        if !is_allowed {
            return Some(Value::Nil);
        }
        self.keys.set(key, SimulatedValue::Text(value.to_owned()), expires);
        Some(Value::Okay)
    }

    fn expire(&mut self, key: &[u8], seconds: &[u8]) -> Option<Value> {
        let expires = self.now + parse(seconds)? * 1000;
        let entry = self.keys.0.get_mut(key);
        let exists = entry.map(|entry| entry.expires = Some(expires)).is_some();
        Some(count(usize::from(exists)))
    }

    fn hash_set(&mut self, key: &[u8], field: &[u8], value: &[u8]) -> Value {
        let SimulatedValue::Hash(fields) =
            self.keys.value(key, || SimulatedValue::Hash(BTreeMap::new()))
        else {
            return wrong_type();
        };
        let is_new = fields.insert(field.to_owned(), value.to_owned()).is_none();
        count(usize::from(is_new))
    }

    fn hash_all(&self, key: &[u8]) -> Value {
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => Value::Array(Vec::new()),
            Some(SimulatedValue::Hash(fields)) => Value::Array(
                fields.iter().flat_map(|(field, value)| [bulk(field), bulk(value)]).collect(),
            ),
            Some(_) => wrong_type(),
        }
    }

    fn hash_length(&self, key: &[u8]) -> Value {
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => count(0),
            Some(SimulatedValue::Hash(fields)) => count(fields.len()),
            Some(_) => wrong_type(),
        }
    }

    fn stream_add(&mut self, key: &[u8], max: u64, fields: &[&[u8]]) -> Value {
        let now = self.now;
        let SimulatedValue::Stream(entries) =
            self.keys.value(key, || SimulatedValue::Stream(BTreeMap::new()))
        else {
            return wrong_type();
        };
        let last = entries.last_key_value().map(|(id, _)| *id).unwrap_or_default();
        let id = if now > last.0 { (now, 0) } else { (last.0, last.1 + 1) };
        entries.insert(id, fields.iter().map(|field| (*field).to_owned()).collect());
        while entries.len() as u64 > max {
            entries.pop_first();
        }
        id_text(id)
    }

    fn stream_read(&self, key: &[u8], max: &[u8], after: &[u8]) -> Option<Value> {
        let (max, after) = (usize::try_from(parse(max)?).ok()?, parse_id(after)?);
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => Some(Value::Nil),
            Some(SimulatedValue::Stream(entries)) => {
                let next = (after.0, after.1 + 1);
                let found: Vec<_> = entries.range(next..).take(max).map(stream_entry).collect();
                if found.is_empty() {
                    return Some(Value::Nil);
                }
                let stream = Value::Array(vec![bulk(key), Value::Array(found)]);
                Some(Value::Array(vec![stream]))
            }
            Some(_) => Some(wrong_type()),
        }
    }

    fn stream_range(&self, key: &[u8], max: &[u8], is_reversed: bool) -> Option<Value> {
        let max = usize::try_from(parse(max)?).ok()?;
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => Some(Value::Array(Vec::new())),
            Some(SimulatedValue::Stream(entries)) => Some(Value::Array(if is_reversed {
                entries.iter().rev().take(max).map(stream_entry).collect()
            } else {
                entries.iter().take(max).map(stream_entry).collect()
            })),
            Some(_) => Some(wrong_type()),
        }
    }

    fn sorted_add(&mut self, key: &[u8], score: &[u8], member: &[u8]) -> Option<Value> {
        let score = parse(score)?;
        let SimulatedValue::SortedSet(members) =
            self.keys.value(key, || SimulatedValue::SortedSet(BTreeMap::new()))
        else {
            return Some(wrong_type());
        };
        Some(count(usize::from(members.insert(member.to_owned(), score).is_none())))
    }

    fn sorted_remove(&mut self, key: &[u8], before: &[u8]) -> Option<Value> {
        let before = parse(before.strip_prefix(b"(")?)?;
        match self.keys.0.get_mut(key).map(|entry| &mut entry.value) {
            None => Some(count(0)),
            Some(SimulatedValue::SortedSet(members)) => {
                let length = members.len();
                members.retain(|_, score| *score >= before);
                Some(count(length - members.len()))
            }
            Some(_) => Some(wrong_type()),
        }
    }

    fn sorted_length(&self, key: &[u8]) -> Value {
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => count(0),
            Some(SimulatedValue::SortedSet(members)) => count(members.len()),
            Some(_) => wrong_type(),
        }
    }

    fn sorted_delete(&mut self, key: &[u8], member: &[u8]) -> Value {
        match self.keys.0.get_mut(key).map(|entry| &mut entry.value) {
            None => count(0),
            Some(SimulatedValue::SortedSet(members)) => {
                count(usize::from(members.remove(member).is_some()))
            }
            Some(_) => wrong_type(),
        }
    }

    fn sorted_range(
        &self,
        key: &[u8],
        start: &[u8],
        max: &[u8],
        with_scores: bool,
    ) -> Option<Value> {
        let (start, max) = (parse(start)?, usize::try_from(parse(max)?).ok()?);
        match self.keys.0.get(key).map(|entry| &entry.value) {
            None => Some(Value::Array(Vec::new())),
            Some(SimulatedValue::SortedSet(members)) => {
                let mut found: Vec<_> =
                    members.iter().filter(|(_, score)| **score >= start).collect();
                found.sort_by_key(|(member, score)| (**score, *member));
                let reply = found.iter().take(max).flat_map(|(member, score)| {
                    let score = with_scores.then(|| bulk(score.to_string().as_bytes()));
                    [Some(bulk(member)), score].into_iter().flatten()
                });
                Some(Value::Array(reply.collect()))
            }
            Some(_) => Some(wrong_type()),
        }
    }

    /// Returns keys in the order of their hashes, so that keys which exist during a whole scan are always found.
    fn scan(&self, cursor: &[u8], pattern: &[u8], max: &[u8]) -> Option<Value> {
        let (cursor, max) = (parse(cursor)?, usize::try_from(parse(max)?).ok()?);
        let prefix = pattern.strip_suffix(b"*")?;
        let mut keys: Vec<_> = self.keys.0.keys().map(|key| (key_hash(key), key)).collect();
        keys.sort_unstable();
        let rest = keys.split_off(keys.partition_point(|(hash, _)| *hash < cursor));
        let next = rest.get(max).map_or(0, |(hash, _)| *hash);
        let found = rest.iter().take_while(|(hash, _)| next == 0 || *hash < next);
        let found = found.filter(|(_, key)| key.starts_with(prefix)).map(|(_, key)| bulk(key));
        Some(Value::Array(vec![bulk(next.to_string().as_bytes()), Value::Array(found.collect())]))
    }
}

fn stream_entry((id, fields): (&StreamId, &Vec<Vec<u8>>)) -> Value {
    let fields = fields.iter().map(|field| bulk(field)).collect();
    Value::Array(vec![id_text(*id), Value::Array(fields)])
}

/// FNV-1a, not 0.
fn key_hash(key: &[u8]) -> u64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}
