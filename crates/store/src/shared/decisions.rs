//! The list of operators' decisions. Each list has a number and a key of its own, which is written once: two replicas
//! cannot write different lists with one number.

use redis::Value;

use super::{
    connection::{CallError, StoreCall},
    error::StoreUnavailable,
    key_names::record_key,
    records::StoredValue,
    replies::{only, optional_string, parse_decimal},
    store::SharedStore,
};
use crate::{
    record::{RecordKey, RecordKind},
    secret::SealError,
};

/// Number of lists that are tried above the highest known one.
const LOOKAHEAD: u64 = 8;

/// Number of lists that are kept, for replicas that are reading the one before.
const KEPT: u64 = 2;

/// Result of looking for a newer list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LatestDecisions {
    /// There is none.
    None,
    /// The newest list.
    List {
        /// Number of the list.
        number: u64,
        /// Its value.
        list: Vec<u8>,
    },
    /// The store states that there is one, but does not return it, or returns an altered one.
    Unreadable,
}

impl SharedStore {
    /// Returns the newest list with a number above `known`, and its number. A list that was altered, or moved to another
    /// number, is not returned.
    ///
    /// # Errors
    /// If the store is not available.
    pub async fn latest_decisions(&self, known: u64) -> Result<LatestDecisions, StoreUnavailable> {
        // Not sealed: a server that returns another number hides a list, as one that does not return it.
        let announced = self.announced_number().await?.filter(|number| *number > known);
        let mut newest = LatestDecisions::None;
        for first in announced.into_iter().chain([known.saturating_add(1)]) {
            for number in first..first.saturating_add(LOOKAHEAD) {
                let StoredValue::Valid(list) = self.decisions(number).await? else { break };
                newest = LatestDecisions::List { number, list };
            }
            if newest != LatestDecisions::None {
                return Ok(newest);
            }
        }
        Ok(if announced.is_some() { LatestDecisions::Unreadable } else { newest })
    }

    /// Writes a list again if the store has lost it, or its number, for example because the store was emptied. Returns
    /// whether something was missing.
    ///
    /// # Errors
    /// If the store is not available.
    pub async fn restore_decisions(
        &self,
        number: u64,
        list: &[u8],
    ) -> Result<bool, StoreUnavailable> {
        if matches!(self.decisions(number).await?, StoredValue::Valid(_)) {
            let is_announced = self.announced_number().await? >= Some(number);
            if !is_announced {
                self.announce(number).await;
            }
            return Ok(!is_announced);
        }
        Ok(matches!(self.add_decisions(number, list).await?, Ok(true)))
    }

    /// Writes the list with a number, which never expires. Returns `false` if another replica has written a list with this
    /// number.
    ///
    /// # Errors
    /// If the store is not available: the list may be written in this case. The inner error: the list is too long.
    pub async fn add_decisions(
        &self,
        number: u64,
        list: &[u8],
    ) -> Result<Result<bool, SealError>, StoreUnavailable> {
        let key = self.decisions_key(number);
        let sealed = match self.secret().seal(&key, u64::MAX, list) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(error)),
        };
        let name = record_key(&key);
        let call = StoreCall::new(&name).command("SET", &[&name, &sealed, b"NX"]);
        let decode = |replies| match only(replies)? {
            Value::Okay => Ok(true),
            Value::Nil => Ok(false),
            _ => Err(CallError::Reply("SET returned something else than OK")),
        };
        let is_written = self.query(&call, decode).await?;
        if is_written {
            self.announce(number).await;
        }
        Ok(Ok(is_written))
    }

    /// Writes the number of the newest list, and removes old ones. Failure is repaired by
    /// [`restore_decisions`](Self::restore_decisions).
    async fn announce(&self, number: u64) {
        let text = number.to_string();
        let name = self.announcement_key();
        let call = StoreCall::new(&name).command("SET", &[&name, text.as_bytes()]);
        let _ = self.query(&call, Ok).await;
        if let Some(old) = number.checked_sub(KEPT) {
            let name = record_key(&self.decisions_key(old));
            let _ = self.query(&StoreCall::new(&name).command("DEL", &[&name]), Ok).await;
        }
    }

    async fn announced_number(&self) -> Result<Option<u64>, StoreUnavailable> {
        let name = self.announcement_key();
        let call = StoreCall::new(&name).command("GET", &[&name]);
        let number = self.query(&call, |replies| optional_string(only(replies)?)).await?;
        Ok(number.and_then(|number| parse_decimal(&number).ok()))
    }

    /// Returns the key of the number of the newest list.
    fn announcement_key(&self) -> Vec<u8> {
        record_key(&RecordKey { version: None, ..self.decisions_key(0) })
    }

    async fn decisions(&self, number: u64) -> Result<StoredValue, StoreUnavailable> {
        let key = self.decisions_key(number);
        let name = record_key(&key);
        let call = StoreCall::new(&name).command("GET", &[&name]);
        let sealed = self.query(&call, |replies| optional_string(only(replies)?)).await?;
        Ok(self.open(&key, sealed.as_deref()))
    }

    fn decisions_key(&self, number: u64) -> RecordKey {
        let kind = RecordKind::Decisions;
        let version = Some(number.to_be_bytes());
        RecordKey { kind, name: self.secret().name(kind, &[]), version }
    }
}
